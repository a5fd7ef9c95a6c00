"""pyctcdecode (Kensho) with a KenLM word n-gram: the reference for our own beam, with hotwords.

pyctcdecode sums over the paths of one text, not of one sequence of labels, and dates words; each
word's labels are then aligned within its frames. It has two ways of its own, kept so that results
are comparable with its other users': a text that is empty or ends in a space is charged as if an
unknown word followed, and unknown beginnings of words are charged during the search without alpha.
"""

import logging
import math
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from asrlib.decoding.align import align
from asrlib.decoding.greedy import Hypothesis
from asrlib.decoding.ngram import open_model
from asrlib.decoding.options import (
    require,
    require_labels,
    require_limits,
    require_sound,
    require_weights,
)
from asrlib.decoding.worker_pool import Workers
from asrlib.text import CTCTextEncoder
from asrlib.text.bpe import WORD_START
from asrlib.text.normalize import normalize, unspoken

MIN_LOGP = math.log(1e-15)  # pyctcdecode's floor; it also keeps -inf from becoming NaN there


class Task(NamedTuple):
    """One utterance and the options of the call: workers have a copy of the decoder's own."""

    log_probs: np.ndarray  # float64 [T', V]
    weights: dict[str, Any]
    limits: dict[str, Any]


class LMDecoder:
    """pyctcdecode's beam search behind our contract.

    All options but the first two and ``processes`` may be set anew between calls.

    Args:
        text_encoder: characters or BPE.
        lm_path: language model (ARPA, plain or .gz, or KenLM binary); it is only read.
        beam_width: texts kept from frame to frame.
        beam_prune_logp: texts that score worse than the best by more than this are dropped.
        token_min_logp: labels below this natural log probability are not tried in a frame, except
            the best of all.
        prune_history: of texts that end in the same n - 1 words only the best stays.
        alpha: weight of the language model.
        beta: added for each word.
        unk_score_offset: added to log10 p of a word outside the language model's vocabulary.
        score_boundary: whether the text is scored as a sentence from its beginning to its end.
        hotwords: words to prefer, known to the language model or not; they are normalised, and a
            phrase counts as its words.
        hotword_weight: added for each hotword, natural logarithm.
        processes: how many share a batch; as many as there are usable cores if not given. Where
            processes cannot be forked, and with 1, there is only this one.

    Raises:
        ValueError: an option out of its range, a hotword that no text can hold, or a language model
            none of whose words the labels can write.
        FileNotFoundError, ModuleNotFoundError: no language model there, no kenlm or pyctcdecode.
    """

    def __init__(
        self,
        text_encoder: CTCTextEncoder,
        lm_path: str | Path,
        beam_width: int = 100,
        beam_prune_logp: float = -10.0,
        token_min_logp: float = -5.0,
        prune_history: bool = False,
        alpha: float = 0.5,
        beta: float = 1.5,
        unk_score_offset: float = -10.0,
        score_boundary: bool = True,
        hotwords: Iterable[str] | None = None,
        hotword_weight: float = 10.0,
        processes: int | None = None,
    ):
        self.text_encoder = text_encoder
        self.beam_width, self.prune_history = beam_width, prune_history
        self.beam_prune_logp, self.token_min_logp = beam_prune_logp, token_min_logp
        self.alpha, self.beta, self.unk_score_offset = alpha, beta, unk_score_offset
        self.score_boundary = score_boundary
        self.hotwords, self.hotword_weight = hotwords, hotword_weight
        self._check_options()
        self._workers = Workers(processes)
        self.processes = self._workers.processes
        self._search = _new_search(text_encoder, lm_path)
        # pyctcdecode keeps its language models in the class, where nothing else would free them
        self._free = weakref.finalize(self, self._search.cleanup)

    def __call__(self, log_probs: Tensor, lengths: Tensor) -> list[Hypothesis]:
        """``log_probs`` float [B, T', V] on any device, ``lengths`` int [B] → B hypotheses.

        ``score`` is pyctcdecode's, hotwords included. ``tokens`` are the text as the text encoder
        spells it, ``frames`` where the most probable path within each word's frames emits them.

        Raises:
            ValueError: V is not the text encoder's, NaN within a length, an option out of its
                range, or the decoder is closed.
        """
        require(self._free.alive, "the decoder is closed")
        require_labels(log_probs, self.text_encoder)
        self._check_options()
        rows = zip(log_probs.detach().cpu(), lengths.tolist(), strict=True)
        outputs = [row[:length].double().numpy() for row, length in rows]
        require_sound(outputs)
        options = self._weights(), self._limits()
        tasks = [Task(output.clip(min=MIN_LOGP), *options) for output in outputs]
        return self._workers.map(self._decode, tasks)

    def close(self) -> None:
        """Ends the processes and frees the language model; leaving a ``with`` block does so too."""
        self._workers.close()
        self._free()

    def __enter__(self) -> "LMDecoder":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def hotwords(self) -> tuple[str, ...]:
        """The words to prefer, normalised."""
        return self._hotwords

    @hotwords.setter
    def hotwords(self, words: Iterable[str] | None) -> None:
        require(not isinstance(words, str), f"hotwords {words!r}: a list of words, not a text")
        self._hotwords = tuple(w for word in words or () for w in self._usable(word))

    def _usable(self, hotword: str) -> list[str]:
        """The normalised words of ``hotword``."""
        require(isinstance(hotword, str), f"hotword {hotword!r}: not a text")
        words = normalize(hotword).split()
        require(bool(words) and not unspoken(hotword), f"hotword {hotword!r}: not made of letters")
        unknown = {*"".join(words)} - _letters(self.text_encoder)
        require(not unknown, f"hotword {hotword!r}: no label writes {''.join(sorted(unknown))!r}")
        return words

    def _check_options(self) -> None:
        require_limits(self.beam_width, self.token_min_logp, self.beam_prune_logp)
        require_weights(self.alpha, self.beta, self.unk_score_offset)
        require(
            0 <= self.hotword_weight < math.inf, f"hotword_weight {self.hotword_weight}: 0 or more"
        )

    def _weights(self) -> dict[str, Any]:
        """What pyctcdecode keeps with the language model; it takes nothing but float and bool."""
        return {
            "alpha": float(self.alpha),
            "beta": float(self.beta),
            "unk_score_offset": float(self.unk_score_offset),
            "lm_score_boundary": bool(self.score_boundary),
        }

    def _limits(self) -> dict[str, Any]:
        """What pyctcdecode is given with each utterance."""
        return {
            "beam_width": int(self.beam_width),
            "beam_prune_logp": self.beam_prune_logp,
            "token_min_logp": self.token_min_logp,
            "prune_history": bool(self.prune_history),
            "hotwords": self.hotwords,
            "hotword_weight": self.hotword_weight,
        }

    def _decode(self, task: Task) -> Hypothesis:
        """In a worker or here; torch stays out of it, since its threads do not survive a fork."""
        if not len(task.log_probs):
            return Hypothesis("", 0.0, [], [])
        self._search.reset_params(**task.weights)
        text, _, words, _, score = self._search.decode_beams(task.log_probs, **task.limits)[0]
        tokens, frames, before = [], [], 0
        for word, (start, end) in words:
            if tokens and (space := self.text_encoder.encode(" ")):  # with BPE there is none
                tokens += space
                frames.append(before + int(task.log_probs[before:start, space[0]].argmax()))
            labels = self.text_encoder.encode(word)
            tokens += labels
            frames += [start + frame for frame in align(task.log_probs[start:end], labels)]
            before = end
        return Hypothesis(text, float(score), tokens, frames)


class _LoneWordStart(str):
    """The piece ``▁``. pyctcdecode takes a ``▁`` at the end of a label, as in its unknown token
    ``▁⁇▁``, for the end of a word, and then begins one with the next label of whichever beam comes
    first. Its test is the slice [-1:], which is empty here."""

    def __getitem__(self, key: Any) -> str:
        return "" if key == slice(-1, None) else super().__getitem__(key)


def _new_search(text_encoder: CTCTextEncoder, lm_path: str | Path) -> Any:
    """pyctcdecode's decoder.

    Its Alphabet is made directly: ``build_ctcdecoder`` would rename labels such as ``|`` and miss
    an unknown token, which our BPE does not have.
    """
    model, words = open_model(lm_path)
    try:
        from pyctcdecode import Alphabet, BeamSearchDecoderCTC, LanguageModel
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"decoder=lm needs {error.name}: "
            "pip install --no-deps --no-build-isolation -r requirements-nodeps.txt",
            name=error.name,
        ) from error
    letters = _letters(text_encoder)
    if not any(letters.issuperset(word) for word in words):
        raise ValueError(
            f"{lm_path}: the labels write none of its words, such as {words[0]!r}; "
            "is it a language model of lower-case words?"
        )
    pieces = [_LoneWordStart(p) if p == WORD_START else p for p in text_encoder.pieces]
    alphabet = Alphabet(pieces, is_bpe=bool(text_encoder.word_starts))
    logging.getLogger("pyctcdecode.language_model").addFilter(_not_about_size)
    return BeamSearchDecoderCTC(alphabet, LanguageModel(model, words))


def _not_about_size(record: logging.LogRecord) -> bool:
    """Not that a vocabulary is small: a corpus of commands has few words."""
    return "unigrams passed as vocabulary" not in record.msg


def _letters(text_encoder: CTCTextEncoder) -> set[str]:
    return {*"".join(text_encoder.pieces)} - {WORD_START, " "}
