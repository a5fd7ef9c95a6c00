"""Log-mel features as a module, computed on the device of the audio.

Design choices:

* The filterbank equals ``torchaudio.functional.melscale_fbanks`` (HTK scale, no area norm), without
  importing torchaudio.
* Frames are centred and the signal is padded with zeros, not by reflection: an utterance is then
  the same alone and in a padded batch.
* Each mel bin of an utterance gets mean 0 and variance 1 over its real frames, so that gain and
  channel drop out.
"""

import torch
from torch import Tensor, nn

from asrlib.model.masking import length_mask, mask_time

N_FFT = 512  # 32 ms at 16 kHz: the next power of two above the window
WINDOW = 400  # 25 ms
HOP = 160  # 10 ms: 100 frames per second
FLOOR = 1e-7  # of power: rounding to 16 bits leaves some 1e-8 in a bin, so digital silence is no outlier
MIN_VARIANCE = 1e-2  # of log power; silence has none, and must not be blown up to 1


def mel_corners(n_mels: int, f_min: float, f_max: float) -> Tensor:
    """Hertz, float64 [n_mels + 2], equidistant in mel (O'Shaughnessy 1987).

    Filter i has its peak at i + 1, its ends at i and i + 2.
    """

    def to_mel(hertz: Tensor) -> Tensor:
        return 2595.0 * torch.log10(1.0 + hertz / 700.0)

    limits = to_mel(torch.tensor([f_min, f_max], dtype=torch.float64))
    mels = torch.linspace(limits[0].item(), limits[1].item(), n_mels + 2, dtype=torch.float64)
    return 700.0 * (10.0 ** (mels / 2595.0) - 1.0)


def mel_filterbank(n_mels: int, f_min: float, f_max: float, sample_rate: int = 16_000) -> Tensor:
    """Triangular filters float32 [N_FFT // 2 + 1, n_mels]."""
    corners = mel_corners(n_mels, f_min, f_max)
    bins = torch.linspace(0, sample_rate / 2, N_FFT // 2 + 1, dtype=torch.float64).unsqueeze(1)
    lower, centre, upper = corners[:-2], corners[1:-1], corners[2:]
    rising, falling = (bins - lower) / (centre - lower), (upper - bins) / (upper - centre)
    return torch.minimum(rising, falling).clamp(min=0.0).float()


class LogMel(nn.Module):
    """Waveform → normalised log-mel spectrogram.

    Args:
        n_mels: mel bins F.
        f_min, f_max: hertz.
        floor_db: what is further below the mean power of an utterance is raised to it; None: only what
            is below ``FLOOR``. So far below speech is what a codec left of high frequencies, or the
            rounding of a file, and the variance of 1 would make it as loud as the speech.

    Raises:
        ValueError: ``floor_db`` is not positive.
    """

    def __init__(
        self,
        n_mels: int = 80,
        f_min: float = 20.0,
        f_max: float = 8_000.0,
        floor_db: float | None = None,
    ):
        super().__init__()
        if floor_db is not None and floor_db <= 0:
            raise ValueError(f"features.floor_db must be positive, not {floor_db}")
        self.n_mels, self.f_min, self.f_max, self.floor_db = n_mels, f_min, f_max, floor_db
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.register_buffer("filters", mel_filterbank(n_mels, f_min, f_max), persistent=False)

    @staticmethod
    def output_length(audio_length: Tensor) -> Tensor:
        """Frames T of a number of samples S."""
        return audio_length // HOP + 1

    @torch.autocast("cuda", enabled=False)
    @torch.autocast("cpu", enabled=False)
    def forward(self, audio: Tensor, audio_length: Tensor) -> tuple[Tensor, Tensor]:
        """float32 [B, S] and samples [B] → float32 [B, F, T] (0 beyond the length) and frames [B]."""
        audio = mask_time(audio.float(), audio_length)
        spectrum = torch.stft(
            audio,
            N_FFT,
            HOP,
            WINDOW,
            self.window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        power = spectrum.real.square() + spectrum.imag.square()
        mel, lengths = self.filters.T @ power, self.output_length(audio_length)
        log_mel = mel.clamp(min=self._floor(mel, lengths)).log()
        return self.normalize(log_mel, lengths), lengths

    def _floor(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """Of the power of each utterance, [B, 1, 1]."""
        floor = mel.new_full((len(mel), 1, 1), FLOOR)
        if self.floor_db is None:
            return floor
        total = mask_time(mel, lengths).sum(dim=(1, 2), keepdim=True)
        mean = total / (self.n_mels * lengths.to(mel.device).view(-1, 1, 1))
        return floor.maximum(mean * 10.0 ** (-self.floor_db / 10.0))

    @staticmethod
    def normalize(log_mel: Tensor, lengths: Tensor) -> Tensor:
        """Mean 0, variance 1 of each bin over the real frames; 0 beyond them."""
        mask = length_mask(lengths, log_mel.shape[-1], log_mel.device).unsqueeze(1)
        count = mask.sum(dim=-1, keepdim=True)
        mean = log_mel.masked_fill(~mask, 0.0).sum(dim=-1, keepdim=True) / count
        centred = (log_mel - mean).masked_fill(~mask, 0.0)
        variance = centred.square().sum(dim=-1, keepdim=True) / count
        return centred / (variance + MIN_VARIANCE).sqrt()
