"""A multi-layer perceptron over spliced frames: the smallest acoustic model, for the one-batch test."""

from torch import Tensor, nn

from asrlib.model.masking import conv_output_length, mask_time


class MLP(nn.Module):
    """Looks at a window of frames, every ``stride`` frames, and nothing else.

    Args:
        n_mels: mel bins F of the input.
        vocabulary_size: labels V.
        width: units of each hidden layer.
        layers: hidden layers.
        context: frames seen on each side of the centre.
        stride: frames of 10 ms from one output to the next.
    """

    def __init__(
        self,
        n_mels: int,
        vocabulary_size: int,
        width: int = 512,
        layers: int = 3,
        context: int = 10,
        stride: int = 2,
    ):
        super().__init__()
        self.context, self.stride = context, stride
        # a linear layer on spliced frames, written as the convolution that it is
        self.splice = nn.Conv1d(n_mels, width, 2 * context + 1, stride, padding=context)
        hidden: list[nn.Module] = [nn.ReLU()]
        for _ in range(layers - 1):
            hidden += [nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU()]
        self.hidden = nn.Sequential(*hidden)
        self.head = nn.Linear(width, vocabulary_size)

    def output_length(self, lengths: Tensor) -> Tensor:
        """Encoder frames T' of feature frames T."""
        return conv_output_length(lengths, 2 * self.context + 1, self.stride, self.context)

    def forward(self, spectrogram: Tensor, spectrogram_length: Tensor) -> dict[str, Tensor]:
        """float [B, F, T] and frames [B] → ``log_probs`` float32 [B, T', V], ``log_probs_length`` [B],
        and ``encoded`` [B, T', D]."""
        x = self.splice(mask_time(spectrogram, spectrogram_length))
        encoded = self.hidden(x.transpose(1, 2))
        return {
            "log_probs": self.head(encoded).float().log_softmax(dim=-1),
            "log_probs_length": self.output_length(spectrogram_length),
            "encoded": encoded,
        }
