"""Each augmentation of a configuration, seen and heard, and what it costs.

python -m report.augmentations --out DIR [AUDIO] [KEY=VALUE…]

    python -m report.augmentations --out report/figures/augmentations
    python -m report.augmentations --out DIR a.flac augmentations=default \\
        'augmentations.waveform.background={_target_: asrlib.augmentations.NoiseFiles, data_dir: NOISES}'

AUDIO is a recording of some seconds; without it a sentence is spoken by a voice of the demonstration
corpus. The background, unless another is given, are more of these voices. Every augmentation is applied
alone, with probability 1: NAME.png has the spectrogram before and after, NAME.flac what the waveform has
become, and before.flac what it was. Prints milliseconds of CPU per second of audio.
"""

import io
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image  # which matplotlib needs, too

from asrlib.augmentations import SpectrogramAugmentations, WaveformAugmentations
from asrlib.build import build_named
from asrlib.configs import compose
from asrlib.data import SAMPLE_RATE, read_audio
from asrlib.data.demo import synthesise, voices
from asrlib.data.demo_text import sentences
from asrlib.files import write_atomically
from asrlib.model import LogMel
from asrlib.tracking.figures import FRAMES_PER_SECOND

BACKGROUND = "augmentations.waveform.background"
SENTENCE = "The old captain carried seven heavy boxes across the frozen river."
DRAWS = 8  # of which the mean cost is told, and the greatest change shown
DECIBELS = (-90.0, -10.0)  # of the colours of a waveform's mel bins
DEVIATIONS = (-2.5, 3.0)  # of those of normalised features


class LogMelPower(LogMel):
    """Decibels, not normalised: a normalised bin does not show that a filter took its sound away."""

    @staticmethod
    def normalize(log_mel, lengths):
        return 10 / np.log(10) * log_mel - 60  # about 0 for a tone at full scale


def spoken() -> np.ndarray:
    """float32 [S]: a sentence in a voice of the demonstration corpus."""
    return synthesise(voices(0, "train")[0], SENTENCE).astype(np.float32) / 32768


def babble(path: Path) -> None:
    """Writes what four voices of the demonstration corpus say at once."""
    said = [
        synthesise(voice, text)
        for voice, text in zip(voices(0, "train")[1:5], sentences(0, "train", 60), strict=False)
    ]
    longest = max(map(len, said))
    soundfile.write(path, sum(np.resize(one, longest) / 2**18 for one in said), SAMPLE_RATE)


def report(audio: np.ndarray, out: Path, *overrides: str) -> dict[str, float]:
    """Writes the files for ``audio`` float32 [S] to ``out``; {name: milliseconds per second}."""
    config = compose("train", "augmentations=robust", *overrides).augmentations
    seconds, costs = len(audio) / SAMPLE_RATE, {}
    _write_sound(out / "before.flac", audio)
    for name, augmentation in build_named(config.waveform).items():
        augmentation.p = 1.0
        chain = WaveformAugmentations({name: augmentation}, seed=0)
        after, costs[name] = _drawn(partial(chain, audio, utterance_id="id"), audio, seconds)
        _write_sound(out / f"{name}.flac", after)
        write_atomically(out / f"{name}.png", _picture(name, map(_power, (audio, after)), DECIBELS))
    features, length = LogMel()(torch.from_numpy(audio)[None], torch.tensor([len(audio)]))
    for name, augmentation in build_named(config.spectrogram).items():
        if hasattr(augmentation, "p"):
            augmentation.p = 1.0
        chain = SpectrogramAugmentations({name: augmentation}, seed=0)
        apply = partial(chain, features, length, utterance_ids=["id"])
        after, costs[name] = _drawn(apply, features, seconds)
        both = (features[0].numpy(), after[0].numpy())
        write_atomically(out / f"{name}.png", _picture(name, both, DEVIATIONS))
    return costs


def _drawn(apply: Callable, before, seconds: float) -> tuple:
    """Of some draws the one that changes most, and milliseconds of CPU per second of audio."""

    def change(after) -> float:
        same_length = after.shape == before.shape
        return float(((after - before) ** 2).sum()) if same_length else float("inf")

    start = time.process_time()
    made = [apply(epoch=epoch) for epoch in range(DRAWS)]
    cost = 1000 * (time.process_time() - start) / DRAWS / seconds
    return max(made, key=change), cost


def _write_sound(path: Path, audio: np.ndarray) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.clip(audio, -1, 1), SAMPLE_RATE, format="FLAC")
    write_atomically(path, file.getvalue())


def _power(audio: np.ndarray) -> np.ndarray:
    return LogMelPower()(torch.from_numpy(audio)[None], torch.tensor([len(audio)]))[0][0].numpy()


def _picture(name: str, before_after, colours: tuple[float, float]) -> bytes:
    """A PNG of two spectrograms [F, T], one above the other."""
    figure = Figure(figsize=(7, 3.6), layout="constrained", dpi=80)
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 1, sharex=True, sharey=True)
    for ax, spectrogram, title in zip(axes, before_after, ("before", name), strict=True):
        n_mels, frames = spectrogram.shape
        ax.imshow(
            spectrogram,
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            cmap="magma",
            vmin=colours[0],
            vmax=colours[1],
            extent=(0, frames / FRAMES_PER_SECOND, -0.5, n_mels - 0.5),
        )
        ax.set_ylabel("mel bin")
        ax.set_title(title, fontsize="medium")
    axes[0].set_xlim(right=max(image.get_extent()[1] for ax in axes for image in ax.images))
    axes[1].set_xlabel("time (s)")
    file = io.BytesIO()
    figure.savefig(file, format="png")
    small = io.BytesIO()
    Image.open(file).convert("RGB").quantize(48).save(small, format="png", optimize=True)
    return small.getvalue()


def main(arguments: list[str]) -> None:
    if "--out" not in arguments[:-1]:
        sys.exit(__doc__)
    place = arguments.index("--out")
    out, rest = Path(arguments[place + 1]), arguments[:place] + arguments[place + 2 :]
    files = [argument for argument in rest if "=" not in argument]
    audio = read_audio(files[0]) if files else spoken()
    overrides = [argument for argument in rest if "=" in argument]
    with tempfile.TemporaryDirectory() as folder:
        if not any(argument.lstrip("+").startswith(BACKGROUND) for argument in overrides):
            babble(Path(folder) / "babble.wav")
            target = f"_target_: asrlib.augmentations.NoiseFiles, data_dir: {folder}"
            overrides.append(f"{BACKGROUND}={{{target}}}")
        for name, cost in report(audio, out, *overrides).items():
            print(f"{name:14} {cost:6.2f} ms/s")


if __name__ == "__main__":
    main(sys.argv[1:])
