"""English sentences for the demonstration corpus, made from a small grammar of our own.

Design choices:

* ``demo_grammar.yaml`` has words by meaning and form (people, things, past verbs, ...) and templates
  with slots, so that every sentence is grammatical everyday English and the vocabulary is closed.
* Slots and templates are drawn from shuffled bags, refilled when empty, instead of independently:
  each word of a list is used before any is used again, which covers the vocabulary evenly.
* A skewed mixture of lengths: short sentences, single clauses, clauses joined by conjunctions, and
  utterances of two sentences.
* Words that sound alike are kept out of the vocabulary (buy, knew, two, their, ...), since sound
  alone could not decide their spelling.
* Everything is a pure function of (seed, split); the caller passes the sentences to keep out.
"""

import itertools
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import yaml

from asrlib.randomness import generator

MOST_WORDS = 39  # the slowest voice says this many in under 15 seconds

_GRAMMAR = yaml.safe_load(Path(__file__).with_name("demo_grammar.yaml").read_text("utf-8"))
_TEMPLATES = {kind: text.splitlines() for kind, text in _GRAMMAR["clauses"].items()}
_FILLERS = {name: words.split() for name, words in _GRAMMAR["lists"].items()}
_JOINS = {kind: words.split() for kind, words in _GRAMMAR["joins"].items()}
_SHAPES = _GRAMMAR["shapes"]
_NAMES = frozenset(_FILLERS["name"] + _GRAMMAR["capitalised"].split())


class _Bags:
    """Draws from named lists without replacement; a bag which has become empty is refilled."""

    def __init__(self, rng: np.random.Generator):
        self._rng = rng
        self._bags: dict[str, list[str]] = {}
        self._drawn: list[tuple[str, str]] = []

    def draw(self, name: str, choices: Sequence[str]) -> str:
        bag = self._bags.setdefault(name, [])
        if not bag:
            bag.extend(choices[i] for i in self._rng.permutation(len(choices)))
        self._drawn.append((name, bag[-1]))
        return bag.pop()

    def keep(self) -> None:
        self._drawn.clear()

    def put_back(self) -> None:
        """Returns what was drawn since the last ``keep``, to be drawn last."""
        for name, choice in self._drawn:
            self._bags[name].insert(0, choice)
        self._drawn.clear()


def _clause(kind: str, bags: _Bags) -> str:
    template = bags.draw(f"template {kind}", _TEMPLATES[kind])

    def filler(slot: re.Match[str]) -> str:
        return bags.draw(slot[1], _FILLERS[slot[1]])

    return re.sub(r"\{(\w+)\}", filler, template).replace("_", " ")


def _sentence(kinds: Sequence[str], bags: _Bags) -> str:
    text = _clause(kinds[0], bags)
    for kind in kinds[1:]:
        text += f", {bags.draw(f'join {kind}', _JOINS[kind])} {_clause(kind, bags)}"
    # every word here that is spelt with a first vowel also begins with one in speech
    text = re.sub(r"\ba (?=[aeiou])", "an ", text)
    text = re.sub(r"[a-z]+", lambda w: w[0].capitalize() if w[0] in _NAMES else w[0], text)
    return text[0].upper() + text[1:] + ("" if text.endswith("?") else ".")


def _utterance(rng: np.random.Generator, bags: _Bags) -> str:
    shape = str(rng.choice(list(_SHAPES), p=list(_SHAPES.values())))
    return " ".join(_sentence(kinds.split(), bags) for kinds in shape.split(" . "))


def transcript(sentence: str) -> str:
    """The words of ``sentence`` in LibriSpeech's form: A-Z, apostrophes and single spaces."""
    return " ".join(re.findall(r"[A-Z']+", sentence.upper()))


def sentences(seed: int, split: str, words: int, without: Collection[str] = ()) -> list[str]:
    """Distinct utterances (one or two sentences) with punctuation, at least ``words`` words in all.

    A pure function of the arguments. No sentence has a transcript listed in ``without`` or more
    than ``MOST_WORDS`` words.
    """
    rng = generator(seed, "demo sentences", split)
    bags = _Bags(rng)
    seen = set(without)
    chosen: list[str] = []
    total = 0
    while total < words:
        sentence = _utterance(rng, bags)
        text = transcript(sentence)
        length = len(text.split())
        if text in seen or length > MOST_WORDS:
            bags.put_back()
        else:
            bags.keep()
            seen.add(text)
            chosen.append(sentence)
            total += length
    return chosen


def vocabulary() -> frozenset[str]:
    """Every word, in capitals, that the grammar can produce."""
    templates = " ".join(itertools.chain(*_TEMPLATES.values(), *_JOINS.values()))
    fillers = " ".join(itertools.chain(*_FILLERS.values())).replace("_", " ")
    literal = re.sub(r"\{\w+\}", " ", templates)
    return frozenset(transcript(f"{literal} {fillers} an").split())
