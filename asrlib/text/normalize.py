"""One normaliser for training texts, references and hypotheses.

The written form is LibriSpeech's in lower case: ``a``–``z``, the apostrophe and single spaces.

* Letters with diacritics become their base letter (NFKD, combining marks dropped: ``é`` → ``e``);
  letters that Unicode does not decompose are spelled out (``ß`` → ``ss``, ``æ`` → ``ae``, ``ø`` → ``o`` …).
* The typographic apostrophes and primes become ``'``. A word made of apostrophes alone is dropped;
  those at the edge of a word stay (``'tis``, ``dogs'``), because a quotation mark cannot be told
  from an elision by looking at it.
* Every other character separates words, as a space does (``well-known`` → ``well known``).

Digits, symbols that are read aloud (``%``, ``&`` …), letters of other scripts and what was not UTF-8
(U+FFFD since it was read) have a sound that this normaliser does not know. ``unspoken`` names them, so that
training can leave such an utterance out by name; in scoring they separate words, on both sides alike.
"""

import unicodedata

ALPHABET = " abcdefghijklmnopqrstuvwxyz'"

_APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼ‛′`´＇", "'"))
_SPELLED = str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "ł": "l", "ı": "i"}
)
_READ_ALOUD_SYMBOLS = frozenset("%&@#+=$€£¥°§\ufffd")


def _fold(text: str) -> str:
    """Lower-case letters without diacritics, plain apostrophes; everything else as it was."""
    if text.isascii():  # the same in a fifth of the time
        return text.replace("`", "'").lower()
    # apostrophes first: NFKD would turn the acute accent into a space and a combining mark
    # and case after it: it decomposes ``ǿ`` into ``ø`` and a mark, and ``ℌ`` into ``H``
    text = unicodedata.normalize("NFKD", text.translate(_APOSTROPHES)).lower()
    return "".join(c for c in text if not unicodedata.combining(c)).translate(_SPELLED)


def normalize(text: str) -> str:
    """``text`` in the alphabet ``a``–``z``, apostrophe, single spaces; idempotent; may be empty."""
    words = "".join(c if c in ALPHABET else " " for c in _fold(text)).split()
    return " ".join(word for word in words if word.strip("'"))


def unspoken(text: str) -> str:
    """The characters of ``text``, sorted and without repeats, that are spoken but not written here."""
    return "".join(
        sorted(
            {
                c
                for c in _fold(text)
                if c not in ALPHABET and (c.isalnum() or c in _READ_ALOUD_SYMBOLS)
            }
        )
    )
