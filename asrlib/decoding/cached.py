"""``log_probs`` of a dataset, computed once and kept on disk, so that a decoder can be tried often.

One safetensors file holds a tensor for every piece that the decoder would be given: one an utterance,
more for those that are read in windows. Its key names the checkpoint, the utterances and the code
that the numbers come from; under another key the file is made anew.

float32, as the model gives them: weights are to be chosen on exactly what inference decodes. 5.4 hours
are 5.4 · 3600 s · 50 frames/s · 29 labels · 4 bytes = 110 MB, at 25 frames/s and 1000 labels 1.9 GB.
"""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

import asrlib
from asrlib.build import choose_device
from asrlib.checkpoint import load_acoustic_model
from asrlib.data.dataset import SpeechDataset
from asrlib.data.loader import make_loader
from asrlib.decoding.greedy import Hypothesis
from asrlib.files import write_atomically
from asrlib.training.evaluation import Decoder, evaluate

CHECKPOINT_FILES = ("model.safetensors", "config.yaml", "text_encoder.json")
CODE = (
    *("model/*.py", "augmentations/*.py"),
    *("data/audio.py", "data/dataset.py", "data/loader.py", "decoding/longform.py"),
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
        self.skipped: dict[str, str] = json.loads(about["skipped"])

    def __reduce__(self):
        return LogProbs, (self.path, self.key)  # another process opens the file itself

    def __contains__(self, id: str) -> bool:
        return id in self._pieces

    def __getitem__(self, id: str) -> list[Tensor]:
        """The pieces of an utterance, float32 [T', V] each."""
        return [self._file.get_tensor(str(number)) for number in self._pieces[id]]

    def decode(self, id: str, decoder: Decoder) -> str:
        """The text that ``LongForm`` and ``evaluate`` would give the utterance with ``decoder``."""
        texts = [decoder(piece[None], torch.tensor([len(piece)]))[0].text for piece in self[id]]
        return " ".join(text.strip() for text in texts if text.strip())


class _Recorder:
    """Stands where a decoder stands: keeps what it is given, and answers its number as the token."""

    def __init__(self):
        self.pieces: list[Tensor] = []

    def __call__(self, log_probs: Tensor, lengths: Tensor) -> list[Hypothesis]:
        numbers = range(len(self.pieces), len(self.pieces) + len(lengths))
        for row, length in zip(log_probs.float().cpu(), lengths.tolist(), strict=True):
            self.pieces.append(row[:length].clone())
        return [Hypothesis("", 0.0, [number], [0]) for number in numbers]


def cached_log_probs(
    path: Path,
    checkpoint: Path,
    dataset: SpeechDataset,
    device: str = "auto",
    batch_seconds: float = 160,
    num_workers: int = 0,
) -> LogProbs:
    """What the model of ``checkpoint`` says about ``dataset``: read from ``path`` if it is there.

    Else it is computed, and ``path`` written or replaced.
    """
    kind = choose_device(device)
    key = fingerprint(checkpoint, dataset, f"{kind.type} {batch_seconds}")
    try:
        found = LogProbs(path, key)
    except (FileNotFoundError, ValueError):
        pass
    else:
        print(f"log_probs: those in {path}")
        return found
    model, text_encoder, _ = load_acoustic_model(checkpoint, kind)
    loader, recorder = make_loader(dataset, batch_seconds, num_workers=num_workers), _Recorder()
    seen = evaluate(loader, model, recorder, text_encoder, description="log_probs")
    about = {
        "key": key,
        "pieces": json.dumps({id: h.tokens for id, h in seen.hypotheses.items()}),
        "skipped": json.dumps({item.utterance.id: item.reason for item in seen.skipped}),
    }
    tensors = {str(number): piece for number, piece in enumerate(recorder.pieces)}
    write_atomically(path, save(tensors, about))
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
