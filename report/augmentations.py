"""Each augmentation of a configuration, seen and heard, and what it costs.

python -m report.augmentations --out DIR [AUDIO] [KEY=VALUE…]

    python -m report.augmentations --out report/figures/augmentations
    python -m report.augmentations --out DIR a.flac augmentations=default \\
        'augmentations.waveform.background={_target_: asrlib.augmentations.NoiseFiles, data_dir: NOISES}'

AUDIO is a recording of some seconds; without it a sentence is spoken by a voice of the demonstration
corpus. Every augmentation is applied alone, with probability 1: NAME.png has the spectrogram before and
after, NAME.flac what the waveform has become. Prints milliseconds of CPU per second of audio.
"""

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch
from hydra import compose, initialize_config_module
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from asrlib.augmentations import SpectrogramAugmentations, WaveformAugmentations
from asrlib.build import build_named
from asrlib.data import SAMPLE_RATE, read_audio
from asrlib.data.demo import synthesise, voices
from asrlib.files import write_atomically
from asrlib.model import LogMel

SENTENCE = "The old captain carried seven heavy boxes across the frozen river."
DRAWS = 8  # whose mean cost is told; the first is shown
DECIBELS = (-110, -40)  # of the colours


def spoken() -> np.ndarray:
    """float32 [S]: a sentence in a voice of the demonstration corpus."""
    return synthesise(voices(0, "train")[0], SENTENCE).astype(np.float32) / 32768


def report(audio: np.ndarray, out: Path, *overrides: str) -> dict[str, float]:
    """Writes the files for ``audio`` [S] to ``out``; returns {name: milliseconds per second}."""
    with initialize_config_module("asrlib.configs", version_base=None):
        config = compose("train", ["augmentations=robust", *overrides]).augmentations
    costs = {}
    for name, augmentation in build_named(config.waveform).items():
        augmentation.p = 1.0
        change = WaveformAugmentations({name: augmentation}, seed=0)
        changed = lambda draw, change=change: change(audio, draw, "id")  # noqa: E731
        costs[name], after = _timed(changed, len(audio))
        file = io.BytesIO()
        soundfile.write(file, np.clip(after, -1, 1), SAMPLE_RATE, format="FLAC")
        write_atomically(out / f"{name}.flac", file.getvalue())
        _draw(out / f"{name}.png", name, augmentation, audio, after)
    features, length = LogMel()(torch.from_numpy(audio)[None], torch.tensor([len(audio)]))
    for name, augmentation in build_named(config.spectrogram).items():
        augmentation.p = 1.0
        change = SpectrogramAugmentations({name: augmentation}, seed=0)
        changed = lambda draw, change=change: change(features, length, draw, ["id"])  # noqa: E731
        costs[name], after = _timed(changed, len(audio))
        _draw(out / f"{name}.png", name, augmentation, features[0].numpy(), after[0].numpy())
    return costs
