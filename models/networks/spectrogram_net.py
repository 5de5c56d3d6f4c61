"""The U-Nets of Auralflow: masks of magnitudes, of spectrograms of any length.

They have its layers, with its faults repaired: docs/networks.md has both.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from .mask_model import MaskEstimate
from .settings import RecurrentNetSettings, SpectrogramNetSettings, VariationalNetSettings

DEPTH = 5
# A smaller spectrogram would vanish on the way down.
LEAST_SIZE = 2**DEPTH
LSTM_DROPOUT = 0.3
# Below this, -240 dB, magnitudes are of silence.
LEAST_MAGNITUDE = 1e-12


def hardtanh_from_0(outputs: Tensor) -> Tensor:
    """Cut to [0, 1]."""
    return nn.functional.hardtanh(outputs, 0.0, 1.0)


def softmax_with_rest(outputs: Tensor) -> Tensor:
    """Over the targets and the rest, whose output is 0: over one target it would be 1."""
    with_rest = torch.cat([outputs, torch.zeros_like(outputs[:, :1])], dim=1)
    return torch.softmax(with_rest, dim=1)[:, :-1]


MASK_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "hardtanh": hardtanh_from_0,
    "tanh": torch.tanh,
    "softmax": softmax_with_rest,
    "prelu": torch.relu,  # a mask ends at 0: a slope below it would never learn
    "selu": nn.functional.selu,
    "elu": nn.functional.elu,
}


class Latent(NamedTuple):
    """What is between the way down and the way up: see `MaskEstimate` for the last two."""

    features: Tensor
    mean: Tensor | None = None
    deviation: Tensor | None = None


class UNet(nn.Module):
    """Five halvings of bins and frames, a bottleneck, and the way back up.

    Parameters
    ----------
    settings
        of its layers
    bottleneck
        makes a `Latent` with twice the channels of `(batch, channels, bins, frames)`
    """

    def __init__(self, settings: SpectrogramNetSettings, bottleneck: nn.Module) -> None:
        super().__init__()
        self.targets = len(settings.targets)
        self.mask_activation = MASK_ACTIVATIONS[settings.mask_act_fn]
        widths = widths_of(settings)
        inputs = [settings.num_channels, *widths[:-1]]
        outputs = self.targets * settings.num_channels
        self.input_norm = InputNorm(settings.bins) if settings.normalize_input else nn.Identity()
        self.downs = nn.ModuleList(
            convolutions(before, width, settings.leak_factor)
            for before, width in zip(inputs, widths, strict=True)
        )
        self.bottleneck = bottleneck
        self.ups = nn.ModuleList(
            Up(2 * width, width, settings.dropout_p) for width in reversed(widths)
        )
        self.soft_conv = nn.Sequential(
            nn.Conv2d(widths[0], outputs, kernel_size=1), nn.BatchNorm2d(outputs)
        )
        self.output_norm = OutputNorm(settings.bins) if settings.normalize_output else nn.Identity()

    def forward(self, spectrograms: Tensor) -> MaskEstimate:
        """Masks of the targets.

        Parameters
        ----------
        spectrograms
            complex `(batch, channels, bins, frames)`; any number of frames

        Returns
        -------
        Masks float32 `(batch, targets, channels, bins, frames)` in [0, 1]
        """
        # The gradient of torch's magnitude is 0 at 0.
        magnitudes = spectrograms.abs()
        batch, channels, bins, frames = magnitudes.shape
        features = padded(self.input_norm(magnitudes))
        skips = []
        for down in self.downs:
            skips.append(down(features))
            features = nn.functional.max_pool2d(skips[-1], kernel_size=2)
        latent: Latent = self.bottleneck(features)
        features = latent.features
        for up in self.ups:
            features = up(features, skips.pop())
        outputs = self.output_norm(self.soft_conv(features)[..., :bins, :frames])
        outputs = outputs.reshape(batch, self.targets, channels, bins, frames)
        estimate = MaskEstimate(
            self.mask_activation(outputs).clamp(0, 1), latent.mean, latent.deviation
        )
        return without_lessons_of_silence(estimate, magnitudes) if self.training else estimate


class SpectrogramNetSimple(UNet):
    """The U-Net with convolutions in its middle."""

    def __init__(self, settings: SpectrogramNetSettings) -> None:
        super().__init__(settings, ConvolutionalBottleneck(settings))


class SpectrogramNetLSTM(UNet):
    """The U-Net with an LSTM in its middle."""

    def __init__(self, settings: RecurrentNetSettings) -> None:
        super().__init__(settings, RecurrentBottleneck(settings))


class SpectrogramNetVAE(UNet):
    """The U-Net with latent variables and an LSTM in its middle."""

    def __init__(self, settings: VariationalNetSettings) -> None:
        super().__init__(settings, VariationalBottleneck(settings))


@torch.jit.unused  # TorchScript separates, and does not train.
def without_lessons_of_silence(estimate: MaskEstimate, magnitudes: Tensor) -> MaskEstimate:
    """The same, with gradients of 0 for silent items.

    In a batch of nothing else, each batch norm divides gradients by the root of its epsilon: after
    some fifteen they would be infinite.
    """
    is_heard = (magnitudes.flatten(1).amax(dim=1) > LEAST_MAGNITUDE).to(magnitudes.dtype)

    def taught(part: Tensor) -> Tensor:
        windows = is_heard.repeat_interleave(len(part) // len(is_heard))
        weight = windows.reshape(-1, *(1 for _ in part.shape[1:]))
        return weight * part + (1 - weight) * part.detach()

    masks, mean, deviation = estimate
    if mean is None or deviation is None:
        return MaskEstimate(taught(masks))
    return MaskEstimate(taught(masks), taught(mean), taught(deviation))


def widths_of(settings: SpectrogramNetSettings) -> list[int]:
    """Channels of the layers on the way down."""
    return [settings.num_hidden_channels * 2**level for level in range(DEPTH)]


def convolutions(inputs: int, outputs: int, leak_factor: float = 0.0) -> nn.Sequential:
    """Three times: convolution, activation, batch norm. A leak of 0 stands for SELUs."""
    layers: list[nn.Module] = []
    for before in (inputs, outputs, outputs):
        convolution = nn.Conv2d(before, outputs, kernel_size=3, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, a=leak_factor)
        activation = nn.LeakyReLU(leak_factor) if leak_factor else nn.SELU()
        layers += [convolution, activation, nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers)


class Up(nn.Module):
    """Twice the bins and frames, beside what the way down had there."""

    def __init__(self, inputs: int, outputs: int, dropout_p: float) -> None:
        super().__init__()
        self.up_convolution = nn.ConvTranspose2d(
            inputs, outputs, kernel_size=5, stride=2, padding=1
        )
        self.norm = nn.BatchNorm2d(outputs)
        self.convolutions = convolutions(2 * outputs, outputs)
        self.dropout = nn.Dropout2d(dropout_p)

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        """Features of the size of `skip`, which is 2 n or 2 n + 1 for n of `features`."""
        bins, frames = skip.shape[-2], skip.shape[-1]
        doubled = self.norm(self.up_convolution(features)[..., :bins, :frames])
        upper: Tensor = self.dropout(self.convolutions(torch.cat([doubled, skip], dim=1)))
        return upper


class ConvolutionalBottleneck(nn.Module):
    """Convolutions of the smallest spectrogram."""

    def __init__(self, settings: SpectrogramNetSettings) -> None:
        super().__init__()
        channels = widths_of(settings)[-1]
        self.convolutions = convolutions(channels, 2 * channels, settings.leak_factor)

    def forward(self, features: Tensor) -> Latent:
        """Twice the channels."""
        return Latent(self.convolutions(features))


class RecurrentBottleneck(nn.Module):
    """A bidirectional LSTM over frequency, or over time.

    Over frequency, each step sees the frames of an excerpt of `sample_length`; longer spectrograms
    are a batch of these, the last one filled up with zeros.
    """

    def __init__(self, settings: RecurrentNetSettings) -> None:
        super().__init__()
        self.is_over_time = settings.input_axis == 0
        size = settings.bins if self.is_over_time else settings.excerpt_frames
        self.width = max(size, LEAST_SIZE) // LEAST_SIZE
        self.features = widths_of(settings)[-1] * self.width
        hidden_size = settings.hidden_size
        self.lstm = nn.LSTM(
            self.features,
            hidden_size,
            num_layers=settings.recurrent_depth,
            dropout=LSTM_DROPOUT if settings.recurrent_depth > 1 else 0.0,
            batch_first=True,
            bidirectional=True,
        )
        self.linear = nn.Sequential(
            nn.Linear(2 * hidden_size, hidden_size),
            nn.SELU(),
            nn.Linear(hidden_size, 2 * self.features),
            nn.SELU(),
        )

    def forward(self, features: Tensor) -> Latent:
        """Twice the channels."""
        return Latent(self.unfold(self.decode(self.fold(features)), features))

    def decode(self, sequences: Tensor) -> Tensor:
        """`(…, steps, features)` to `(…, steps, 2 features)`."""
        decoded: Tensor = self.linear(self.lstm(sequences)[0])
        return decoded

    def fold(self, features: Tensor) -> Tensor:
        """`(batch, channels, bins, frames)` to `(batch * windows, steps, features)`."""
        if self.is_over_time:
            features = features.transpose(2, 3)
        missing = -features.shape[3] % self.width
        features = torch.constant_pad_nd(features, [0, missing])
        batch, channels, steps, size = features.shape
        windows = features.reshape(batch, channels, steps, size // self.width, self.width)
        return windows.permute(0, 3, 2, 1, 4).reshape(-1, steps, self.features)

    def unfold(self, sequences: Tensor, like: Tensor) -> Tensor:
        """The inverse of `fold`, with twice the channels of `like`."""
        batch, channels = like.shape[0], like.shape[1]
        steps = sequences.shape[1]
        windows = sequences.reshape(batch, -1, steps, 2 * channels, self.width)
        features = windows.permute(0, 3, 2, 1, 4).flatten(3)
        if self.is_over_time:
            features = features.transpose(2, 3)
        return features[..., : like.shape[2], : like.shape[3]]


class VariationalBottleneck(RecurrentBottleneck):
    """The LSTM of latent variables: drawn in training, else the means of their distributions."""

    # Of a natural logarithm, so that the square of a deviation stays finite.
    MOST_LOG_DEVIATION: Final = 10.0

    def __init__(self, settings: VariationalNetSettings) -> None:
        super().__init__(settings)
        self.mean = nn.Linear(self.features, self.features)
        self.log_deviation = nn.Linear(self.features, self.features)

    def forward(self, features: Tensor) -> Latent:
        """Twice the channels, and the distributions `(batch * windows, steps, features)`."""
        sequences = self.fold(features)
        mean = self.mean(sequences)
        log_deviation = self.log_deviation(sequences)
        deviation = log_deviation.clamp(-self.MOST_LOG_DEVIATION, self.MOST_LOG_DEVIATION).exp()
        drawn = mean + deviation * torch.randn_like(mean) if self.training else mean
        return Latent(self.unfold(self.decode(drawn), features), mean, deviation)


class InputNorm(nn.Module):
    """Mean 0 and variance 1 for each item, then a gain and a bias for each bin."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(bins, 1))
        self.bias = nn.Parameter(torch.zeros(bins, 1))

    def forward(self, magnitudes: Tensor) -> Tensor:
        """Same shape, `(batch, channels, bins, frames)`."""
        normalised = nn.functional.layer_norm(magnitudes, magnitudes.shape[1:])
        return normalised * self.gain + self.bias


class OutputNorm(nn.Module):
    """A centre and a scale for each bin."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.zeros(bins, 1))
        self.scale = nn.Parameter(torch.ones(bins, 1))

    def forward(self, outputs: Tensor) -> Tensor:
        """Same shape, `(batch, channels, bins, frames)`."""
        return (outputs - self.centre) * self.scale


def padded(spectrograms: Tensor, least_size: int = LEAST_SIZE) -> Tensor:
    """At least `least_size` bins and frames, with zeros behind the last."""
    bins, frames = spectrograms.shape[-2], spectrograms.shape[-1]
    missing = [0, max(0, least_size - frames), 0, max(0, least_size - bins)]
    return torch.constant_pad_nd(spectrograms, missing)
