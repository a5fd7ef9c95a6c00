"""Randomness without hidden state.

Every draw is a pure function of a key, such as (seed, epoch, utterance id, augmentation name) on the
data side and (seed, step, name) on the device side. The number of workers, the order in which they
run, a restart, or an augmentation added beside another can then not change what is drawn.
"""

import hashlib

import numpy as np

Key = str | int


def hashed(*key: Key) -> int:
    """A 128-bit integer that depends on every part of ``key`` and on nothing else (BLAKE2b)."""
    # repr keeps ("1", 2) and (1, "2") apart and separates the parts
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=16).digest(), "little")


def generator(*key: Key) -> np.random.Generator:
    """A NumPy generator for ``key``: Philox, whose stream is documented not to change by platform."""
    return np.random.Generator(np.random.Philox(key=hashed(*key)))


def torch_seed(*key: Key) -> int:
    """A seed for ``torch.manual_seed`` (63 bits) that depends on every part of ``key``."""
    return hashed(*key) >> 65
