"""Language models of others, spelled as our transcripts are.

LibriSpeech's are in capitals, others have ``Don’t`` or punctuation marks; a search over our letters
would find none of their words. ``prepared`` gives a file that it can use: the one it was given, or
else a copy in the cache (``$ASRLIB_CACHE``), made once. The file itself is never written to.

* A word becomes what ``asrlib.text.normalize`` makes of it. The marks ``<s>``, ``</s>`` and
  ``<unk>`` stay, in lower case, as KenLM wants them.
* A word that our transcripts never hold as one word (``--``, ``well-known``, ``4th``, ``<noise>``)
  is dropped with every n-gram that it is part of. What remains keeps its probability.
* Of n-grams that become the same (``Don't know``, ``DON'T know``) the most probable one stays, with
  its back-off weight. Their sum would not do: two probabilities after different histories may come
  to more than 1. Such n-grams wait in memory, some 300 bytes each, for the end of their order;
  otherwise memory holds the words alone.
"""

import gzip
import hashlib
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from asrlib.data.utterance import cache_dir
from asrlib.language_model.arpa import Arpa, open_arpa, written
from asrlib.language_model.binary import is_binary, words_of
from asrlib.text import normalize, unspoken

VERSION = 1  # of the rules above: part of what makes a copy up to date
MARKS = {b"<s>", b"</s>", b"<unk>"}
_OURS = re.compile(rb"[a-z]+(?:'[a-z]+)*")  # as it stands; others have to be looked at
_BRACKETED = re.compile(r"<.*>|\[.*\]|\{.*\}|\(.*\)", re.DOTALL)


def prepared(path: Path | str) -> Path:
    """``path`` if its words are spelled as ours already, else an up-to-date copy where they are.

    Raises:
        FileNotFoundError: no such file.
        ValueError: neither a sound ARPA file (plain or gzip's) nor a binary of KenLM, or a binary of
            other words than ours; binaries cannot be changed.
        OSError: the copy cannot be written.
    """
    path = Path(path)
    if is_binary(path):
        _refuse_foreign_binary(path)
        return path
    if _is_ours(path):
        return path
    place = hashlib.blake2b(str(path.absolute()).encode(), digest_size=6).hexdigest()
    return prepare(path, cache_dir() / "lm" / f"{place}-{path.name}")


def prepare(source: Path | str, out: Path | str) -> Path:
    """Writes ``source`` with words as ours to ``out``, unless that is there and up to date.

    ``out`` is compressed if its name ends in ``.gz``; its first line is a comment, which KenLM
    skips, with a hash of the source's path, size and time of change. Says what was left out.

    Raises:
        as ``prepared``; and ValueError: ``out`` is ``source``, or no word is left.
    """
    source, out = Path(source), Path(out)
    if out.exists() and out.samefile(source):
        raise ValueError(f"{source} would be overwritten: name another file")
    if is_binary(source):
        raise ValueError(f"{source} is a binary of KenLM, which cannot be changed: give the ARPA")
    stamp = b"# words as asrlib spells them, made from %s\n" % _state(source)
    if out.is_file() and _first_line(out) == stamp:
        return out
    _say(f"writing {out}: {source} with its words spelled as ours, once")
    words = _read_words(source)
    counts = _counts(source, words)
    try:
        with written(out) as file, tqdm(total=sum(counts), unit=" n-grams", disable=None) as bar:
            file.write(stamp + b"\\data\\\n")
            for order, count in enumerate(counts, 1):
                file.write(b"ngram %d=%d\n" % (order, count))
            for order, lines in _sections(source, words):
                file.write(b"\n\\%d-grams:\n" % order)
                for line in lines:
                    file.write(line)
                    bar.update()
            file.write(b"\n\\end\\\n")
    except OSError as error:
        advice = "set ASRLIB_CACHE to a writable folder with room"
        raise OSError(f"{out} cannot be written: {error}; {advice}") from error
    return out


def spelled(word: bytes) -> bytes | None:
    """A word of a language model as our transcripts have it; None if they have no such word.

    Raises:
        UnicodeDecodeError: not UTF-8.
    """
    if _OURS.fullmatch(word):
        return word
    if word.lower() in MARKS:
        return word.lower()
    text = word.decode()
    if _BRACKETED.fullmatch(text) or unspoken(text):
        return None
    normalised = normalize(text).encode()
    return normalised if len(normalised.split()) == 1 else None


@dataclass(frozen=True)
class _Words:
    """{word of the source: ours, or None}, and those of ours that several words became."""

    ours: dict[bytes, bytes | None]
    shared: frozenset[bytes]


def _read_words(source: Path) -> _Words:
    ours: dict[bytes, bytes | None] = {}
    with open_arpa(source) as arpa:
        for _, word, *_ in arpa.ngrams(1):
            if word in ours:
                raise arpa.error(f"{word!r} stands among the 1-grams twice")
            ours[word] = _spelled(arpa, word)
    times = Counter(ours.values())
    dropped = [word.decode() for word, form in ours.items() if form is None]
    shared = frozenset(form for form, n in times.items() if form and n > 1)
    if not times.keys() - MARKS - {None}:
        raise ValueError(f"{source}: none of its words can be written with our letters")
    if dropped:
        _say(f"{source}: {len(dropped)} words dropped, such as {' '.join(dropped[:5])}")
    if shared:
        several = sum(times[form] for form in shared)
        _say(f"{source}: {several} words became {len(shared)}, such as {min(shared).decode()}")
    return _Words(ours, shared)


def _counts(source: Path, words: _Words) -> list[int]:
    """How many n-grams of each order will be written; KenLM takes orders without any."""
    with open_arpa(source) as arpa:
        before = arpa.counts
    if not words.shared and None not in words.ours.values():
        return before
    kept = [sum(1 for _ in lines) for _, lines in _sections(source, words)]
    pairs = [f"{after} of {count}" for after, count in zip(kept, before, strict=True)]
    _say(f"{source}: n-grams kept, by order: {', '.join(pairs)}")
    return kept


def _sections(source: Path, words: _Words) -> Iterator[tuple[int, Iterator[bytes]]]:
    """Each order and its lines, all of which must be taken before the next."""
    with open_arpa(source) as arpa:
        for order in range(1, len(arpa.counts) + 1):
            yield order, _ngrams(arpa, order, words)
        arpa.end()


def _ngrams(arpa: Arpa, order: int, words: _Words) -> Iterator[bytes]:
    """The lines of one order; those with a word that several words became come last."""
    best: dict[bytes, tuple[float, bytes]] = {}
    for fields in arpa.ngrams(order):
        try:
            ours = [words.ours[word] for word in fields[1 : order + 1]]
        except KeyError as error:
            raise arpa.error(f"{error} is not among the 1-grams") from None
        if None in ours:
            continue
        ngram = b" ".join(ours)
        line = b"\t".join((fields[0], ngram, *fields[order + 1 :])) + b"\n"
        if words.shared.isdisjoint(ours):
            yield line
        elif ngram not in best or float(fields[0]) > best[ngram][0]:
            best[ngram] = float(fields[0]), line
    for _, line in best.values():
        yield line


def _is_ours(path: Path) -> bool:
    """Whether no word has to be spelled differently; those that never occur do no harm."""
    with open_arpa(path) as arpa:
        known_unk = MARKS | {b"<UNK>"}  # KenLM takes both
        for _, word, *_ in arpa.ngrams(1):
            if word not in known_unk and _spelled(arpa, word) not in (word, None):
                return False
    return True


def _spelled(arpa: Arpa, word: bytes) -> bytes | None:
    try:
        return spelled(word)
    except UnicodeDecodeError:
        raise arpa.error(f"{word!r} is not UTF-8") from None


def _refuse_foreign_binary(path: Path) -> None:
    """A few foreign words do no harm, but a model of nothing else would be of no use."""
    words = [word for word in words_of(path) if word.lower() not in MARKS]
    foreign = [word for word in words if not _OURS.fullmatch(word)]
    if 2 * len(foreign) > len(words):
        raise ValueError(
            f"{path}: {len(foreign)} of its {len(words)} words are not spelled as ours, such as "
            f"{foreign[0].decode(errors='replace')}; a binary cannot be changed: give the ARPA file"
        )


def _say(message: str) -> None:
    print(message, file=sys.stderr)  # standard output is the caller's


def _state(path: Path) -> bytes:
    stat = path.stat()
    state = repr((VERSION, str(path.absolute()), stat.st_size, stat.st_mtime_ns))
    return hashlib.blake2b(state.encode(), digest_size=12).hexdigest().encode()


def _first_line(path: Path) -> bytes:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        try:
            return file.readline(200)
        except (EOFError, gzip.BadGzipFile):
            return b""
