"""What a model says about a dataset, computed once and kept on disk, so that a decoder can be tried often.

One safetensors file holds what the decoder reads (``log_probs``, ``encoded``, ``phone_log_probs``), of every
piece that it would be given: one an utterance, more for those that are read in windows. Its key names
the checkpoint, the utterances and the code that the numbers come from; under another key the file is
made anew.

float32, as the model gives them: weights are to be chosen on exactly what inference decodes. 5.4 hours
are 5.4 · 3600 s · 50 frames/s · 29 labels · 4 bytes = 110 MB, at 25 frames/s and 1000 labels 1.9 GB.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

import asrlib
from asrlib.build import choose_device
from asrlib.checkpoint import load_acoustic_model
from asrlib.data.dataset import SpeechDataset
from asrlib.data.loader import make_loader
from asrlib.decoding.contract import LENGTH, Decoder, decode_one
from asrlib.decoding.greedy import Hypothesis
from asrlib.files import write_atomically
from asrlib.training.evaluation import evaluate

RAREST = 1e-4  # probability of a label in a frame
CHECKPOINT_FILES = ("model.safetensors", "config.yaml", "text_encoder.json")
CODE = (
    *("model/*.py", "augmentations/*.py", "data/*.py"),
    *("randomness.py", "training/evaluation.py", "decoding/longform.py"),
)


class LogProbs:
    """The file, open. It is mapped, so processes that read it share the memory.

    Attributes:
        skipped: {id: reason} of the utterances that could not be read.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it was made for another ``key``, or is damaged.
    """

    def __init__(self, path: Path, key: str):
        self.path, self.key = path, key
        try:
            self._file = safe_open(path, "pt")
        except SafetensorError as error:
            raise ValueError(f"{path}: {error}") from error
        about = self._file.metadata()
        if about.get("key") != key:
            raise ValueError(f"{path} holds the log_probs of another checkpoint or other data")
        self._pieces: dict[str, list[int]] = json.loads(about["pieces"])
        self._names: list[str] = json.loads(about["names"])
        self.skipped: dict[str, str] = json.loads(about["skipped"])

    def __reduce__(self):
        return LogProbs, (self.path, self.key)  # another process opens the file itself

    def __contains__(self, id: str) -> bool:
        return id in self._pieces

    def __getitem__(self, id: str) -> list[dict[str, Tensor]]:
        """The pieces of an utterance: ``log_probs`` float32 [T', V], and others [T', ...]."""
        return [
            {name: self._file.get_tensor(f"{name}/{number}") for name in self._names}
            for number in self._pieces[id]
        ]

    def label_prior(self, name: str = "log_probs") -> list[float]:
        """The mean probability of each label of ``name`` over all frames of all utterances, [V].

        What is rarer than ``RAREST`` counts as that, so that no noise in it decides what is said.
        """
        sums, frames = 0.0, 0
        for id in self._pieces:
            for piece in self[id]:
                sums = sums + piece[name].double().exp().sum(dim=0)
                frames += len(piece[name])
        return [max(float(f"{p:.4g}"), RAREST) for p in (sums / frames).tolist()]

    def decode(self, id: str, decoder: Decoder) -> str:
        """The text that ``LongForm`` and ``evaluate`` would give the utterance with ``decoder``."""
        texts = [decode_one(decoder, piece).text for piece in self[id]]
        return " ".join(text for text in texts if text)


class _Recorder:
    """Stands where a decoder stands: keeps what it reads, and answers its number as the token."""

    def __init__(self, names: list[str]):
        self.reads = (LENGTH, *names)
        self.tensors: dict[str, Tensor] = {}
        self.count = 0

    def __call__(self, lengths: Tensor, *outputs: Tensor) -> list[Hypothesis]:
        numbers = range(self.count, self.count + len(lengths))
        self.count += len(lengths)
        for name, output in zip(self.reads[1:], outputs, strict=True):
            for number, row, length in zip(
                numbers, output.float().cpu(), lengths.tolist(), strict=True
            ):
                self.tensors[f"{name}/{number}"] = row[:length].clone()
        return [Hypothesis("", 0.0, [number], [0]) for number in numbers]


def cached_log_probs(
    path: Path,
    checkpoint: Path,
    dataset: SpeechDataset,
    device: str = "auto",
    batch_seconds: float = 160,
    num_workers: int = 0,
    names: Sequence[str] = ("log_probs",),
) -> LogProbs:
    """What the model of ``checkpoint`` says about ``dataset``: read from ``path`` if it is there.

    Else it is computed, and ``path`` written or replaced.

    Args:
        names: of its output, [T', ...] each, ``log_probs`` among them.
    """
    kind = choose_device(device)
    key = fingerprint(checkpoint, dataset, f"{kind.type} {batch_seconds} {sorted(names)}")
    try:
        found = LogProbs(path, key)
    except (FileNotFoundError, ValueError):
        pass
    else:
        print(f"log_probs: those in {path}")
        return found
    model, text_encoder, _ = load_acoustic_model(checkpoint, kind)
    loader = make_loader(dataset, batch_seconds, num_workers=num_workers)
    recorder = _Recorder(sorted(names))
    seen = evaluate(loader, model, recorder, text_encoder, description="log_probs")
    about = {
        "key": key,
        "names": json.dumps(sorted(names)),
        "pieces": json.dumps({id: h.tokens for id, h in seen.hypotheses.items()}),
        "skipped": json.dumps({item.utterance.id: item.reason for item in seen.skipped}),
    }
    write_atomically(path, save(recorder.tensors, about))
    print(f"log_probs: computed and kept in {path}")
    return LogProbs(path, key)


def fingerprint(checkpoint: Path, dataset: SpeechDataset, how: str) -> str:
    """Of all that ``log_probs`` depend on. Texts are not among it: they may be corrected.

    Args:
        how: they are computed; another device or batch may round otherwise.
    """
    digest = hashlib.sha256(f"{how} {dataset.augmentations}".encode())
    package = Path(asrlib.__file__).parent
    code = sorted(path for pattern in CODE for path in package.glob(pattern))
    for path in [*(checkpoint / name for name in CHECKPOINT_FILES), *code]:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    for utterance in dataset.utterances:
        path = Path(utterance.path)
        stat = path.stat() if path.exists() else None
        state = stat and (stat.st_size, stat.st_mtime_ns)
        digest.update(repr((utterance.id, utterance.path, utterance.duration, state)).encode())
    return digest.hexdigest()
