"""Items → one batch, in the template's keys.

| key | value | shape, dtype |
|---|---|---|
| ``audio`` | waveforms, zero beyond each length | float32 [B, S] |
| ``audio_length`` | samples | int64 [B] |
| ``text_encoded`` | label ids, 0 beyond each length | int64 [B, U] |
| ``text_encoded_length`` | labels | int64 [B] |
| ``utterance`` | ``Utterance``, its text normalised | list of B |
| ``text``, ``utterance_id``, ``audio_path`` | its fields under the template's names | lists of B |
| ``skipped`` | what could not be read | list of ``SkippedItem`` |
| ``long`` | what is too long for a batch | list of ``LongItem`` |

The trainer and the inferencer add ``spectrogram`` float32 [B, F, T] and ``spectrogram_length``
int64 [B], the model ``log_probs`` [B, T', V] and ``log_probs_length`` [B]. Lengths stay on the CPU,
where packing, masks and feasibility need them as numbers. A batch of which nothing could be read has
no ``audio``.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from asrlib.data.dataset import Item, LongItem, SkippedItem


def collate(items: Sequence[Item | SkippedItem | LongItem]) -> dict:
    """One batch; see the module's table."""
    batch: dict = {
        "skipped": [item for item in items if isinstance(item, SkippedItem)],
        "long": [item for item in items if isinstance(item, LongItem)],
    }
    items = [item for item in items if isinstance(item, Item)]
    if not items:
        return batch
    audio = [torch.from_numpy(item.audio) for item in items]
    batch["audio"] = pad_sequence(audio, batch_first=True)
    batch["audio_length"] = torch.tensor([len(a) for a in audio])
    batch["utterance"] = [item.utterance for item in items]
    batch["text"] = [item.utterance.text for item in items]
    batch["utterance_id"] = [item.utterance.id for item in items]
    batch["audio_path"] = [item.utterance.path for item in items]
    if all(item.tokens is not None for item in items):
        tokens = [torch.from_numpy(np.array(item.tokens, dtype=np.int64)) for item in items]
        batch["text_encoded"] = pad_sequence(tokens, batch_first=True)
        batch["text_encoded_length"] = torch.tensor([len(t) for t in tokens])
    return batch
