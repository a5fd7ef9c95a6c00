"""Words as phones: how they sound, which English spelling hides.

espeak-ng's rules and exceptions for General American pronounce any word, each as if it stood alone.
Its IPA is brought down to ``PHONES``: without stress, length where nothing hangs on it, and the shades of
the unstressed vowels, none of which five hours of speech can teach.
"""

import ctypes
import re
from collections.abc import Iterable, Sequence
from itertools import chain

import torch
from torch import Tensor

from asrlib.espeak import in_a_process, open_espeak

VOICE = "gmw/en-US"

# In IPA, in the order of their ids, which start at 1: 0 is CTC's blank.
PHONES = (
    *("p", "b", "t", "d", "ɾ", "k", "ɡ", "tʃ", "dʒ", "f", "v", "θ", "ð", "s", "z", "ʃ", "ʒ", "h"),
    *("m", "n", "ŋ", "l", "ɹ", "w", "j"),
    *("iː", "ɪ", "eɪ", "ɛ", "æ", "ɑː", "ɔː", "oʊ", "ʊ", "uː", "ʌ", "ə", "ɚ", "aɪ", "aʊ", "ɔɪ"),
)
# What espeak-ng writes beside them, and the nearest of them. What is in neither (stress, the glottal stop,
# marks of other languages) is left out.
NEAREST = {
    "i": "iː",
    "ᵻ": "ɪ",
    "e": "ɛ",
    "a": "æ",
    "ɐ": "ə",
    "ɜː": "ɚ",
    "ɑ": "ɑː",
    "ɔ": "ɔː",
    "o": "oʊ",
    "u": "uː",
    "r": "ɹ",
    "x": "k",
    "ç": "h",
    "ɬ": "l",
}
ID_OF = {phone: i for i, phone in enumerate(PHONES, start=1)}
ID_OF |= {written: ID_OF[phone] for written, phone in NEAREST.items()}
_WRITTEN = re.compile("|".join(sorted(ID_OF, key=len, reverse=True)))


class Pronouncer:
    """Phones of texts; what was pronounced once is kept."""

    def __init__(self):
        self._ids_of: dict[str, list[int]] = {}

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Phone ids int64 [B, U], 0 beyond each length, and lengths int64 [B] of normalised texts.

        Raises:
            ImportError, RuntimeError, ValueError: espeak-ng is not there, or does not run.
        """
        words = [text.split() for text in texts]
        self.words(list(chain.from_iterable(words)))  # all at once
        rows = [list(chain.from_iterable(self.words(said))) for said in words]
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        ids = torch.zeros(len(rows), max(map(len, rows), default=0), dtype=torch.int64)
        for row, found in zip(ids, rows, strict=True):
            row[: len(found)] = torch.tensor(found, dtype=torch.int64)
        return ids, lengths

    def words(self, words: Sequence[str]) -> list[list[int]]:
        """Phone ids of each word; of what is no word, none.

        Raises:
            ImportError, RuntimeError, ValueError: as above.
        """
        if new := sorted({*words} - self._ids_of.keys()):
            self._ids_of |= zip(new, map(_ids, in_a_process(_pronounce, new)), strict=True)
        return [self._ids_of[word] for word in words]


def _pronounce(words: Iterable[str]) -> list[str]:
    """IPA of each word, its segments divided by "_"; to be called once in the life of a process."""
    lib, _ = open_espeak(VOICE)
    lib.espeak_TextToPhonemes.restype = ctypes.c_char_p
    found = []
    for word in words:
        text = ctypes.c_char_p(word.encode())
        # from espeak-ng's speak_lib.h: UTF-8; IPA, and from bit 8 on what divides its segments
        ipa = lib.espeak_TextToPhonemes(ctypes.byref(text), 1, 2 | ord("_") << 8)
        found.append((ipa or b"").decode())
    return found


def _ids(ipa: str) -> list[int]:
    return [ID_OF[written] for written in _WRITTEN.findall(ipa)]
