"""Networks from frames of an excerpt to a score for each label.

Excerpts of a batch may have different lengths: what is behind the end of one makes no difference to
its scores, nor do the others. Here stands what TorchScript compiles.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .settings import ATTENTION_HEADS, EncoderSettings

# Of convolutions over frames; each halves their number.
KERNEL_FRAMES = 5
SUBSAMPLING_LAYERS = 2


class SequenceClassifier(nn.Module):
    """Scores of labels for excerpts.

    Parameters
    ----------
    settings
        of the network
    bins
        of a frame
    labels
        how many
    mean, deviation
        float32 `(bins,)` of the training set's frames, by which all are normalised
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, settings: EncoderSettings, bins: int, labels: int, mean: Tensor, deviation: Tensor
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.encoder = make_encoder(settings, bins)
        size = settings.hidden_size * (2 if settings.bidirectional else 1)
        self.pooling = make_pooling(settings, size)
        self.head = nn.Sequential(
            nn.Dropout(settings.dropout),
            nn.Linear(size, settings.hidden_size),
            nn.ReLU(),
            nn.Dropout(settings.dropout),
            nn.Linear(settings.hidden_size, labels),
        )

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Logits: what softmax, or for several labels the sigmoid, makes probabilities of.

        Parameters
        ----------
        frames
            float32 `(batch, frames, bins)`, any finite numbers behind the end of an excerpt
        lengths
            int64 `(batch,)`, frames of each, at least 1

        Returns
        -------
        float32 `(batch, labels)`
        """
        normalised = (frames - self.mean) / self.deviation
        encoded, left = self.encoder(normalised * mask_of(frames, lengths), lengths)
        pooled: Tensor = self.pooling(encoded, left)
        logits: Tensor = self.head(pooled)
        return logits


def mask_of(frames: Tensor, lengths: Tensor) -> Tensor:
    """1 in an excerpt and 0 behind its end: `(batch, frames, 1)`."""
    numbers = torch.arange(frames.shape[1], device=frames.device)
    return (numbers[None] < lengths[:, None]).to(frames.dtype)[:, :, None]


def make_encoder(settings: EncoderSettings, bins: int) -> nn.Module:
    """What makes `(batch, frames, features)` of `(batch, frames, bins)`, and tells the lengths."""
    match settings.encoder:
        case "lstm":
            return LstmEncoder(settings, bins)
        case "gru":
            return GruEncoder(settings, bins)
        case "cnn":
            return ConvolutionalEncoder(
                bins, settings.hidden_size, settings.num_layers, settings.dropout
            )
        case "transformer":
            return TransformerEncoder(settings, bins)


class LstmEncoder(nn.Module):
    """Layers of long short-term memory."""

    def __init__(self, settings: EncoderSettings, bins: int) -> None:
        super().__init__()
        self.layers = nn.LSTM(bins, **_of_recurrent_layers(settings))
        self.initial = _initial_states(settings, states=2)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Features of each frame, and the lengths."""
        state = self.initial.expand(-1, -1, frames.shape[0], -1).contiguous()
        packed = pack_padded_sequence(frames, lengths.cpu(), batch_first=True, enforce_sorted=False)
        encoded, _ = self.layers(packed, (state[0], state[1]))
        padded, _ = pad_packed_sequence(encoded, batch_first=True)
        return padded, lengths


class GruEncoder(nn.Module):
    """Layers of gated recurrent units."""

    def __init__(self, settings: EncoderSettings, bins: int) -> None:
        super().__init__()
        self.layers = nn.GRU(bins, **_of_recurrent_layers(settings))
        self.initial = _initial_states(settings, states=1)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Features of each frame, and the lengths."""
        state = self.initial.expand(-1, -1, frames.shape[0], -1).contiguous()
        packed = pack_padded_sequence(frames, lengths.cpu(), batch_first=True, enforce_sorted=False)
        encoded, _ = self.layers(packed, state[0])
        padded, _ = pad_packed_sequence(encoded, batch_first=True)
        return padded, lengths


class ConvolutionalEncoder(nn.Module):
    """Convolutions over frames, each of which halves their number."""

    def __init__(self, bins: int, features: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            _HalvingConvolution(features if layer else bins, features, dropout)
            for layer in range(layers)
        )

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the frames that are left, and how many these are."""
        for convolution in self.convolutions:
            lengths = torch.div(lengths + 1, 2, rounding_mode="floor")
            frames = convolution(frames)
            # Zeros, as if the next convolution padded the excerpt itself.
            frames = frames * mask_of(frames, lengths)
        return frames, lengths


class _HalvingConvolution(nn.Module):
    def __init__(self, bins: int, features: int, dropout: float) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(
            bins, features, KERNEL_FRAMES, stride=2, padding=KERNEL_FRAMES // 2
        )
        # Of each frame for itself: statistics over a batch would depend on what is padded.
        self.norm = nn.LayerNorm(features)
        self.dropout = nn.Dropout(dropout)

    def forward(self, frames: Tensor) -> Tensor:
        made = self.convolution(frames.transpose(1, 2)).transpose(1, 2)
        made = self.dropout(torch.relu(self.norm(made)))
        return made


class TransformerEncoder(nn.Module):
    """Attention between all frames, of which convolutions leave one in four."""

    def __init__(self, settings: EncoderSettings, bins: int) -> None:
        super().__init__()
        size = settings.hidden_size
        self.subsampling = ConvolutionalEncoder(bins, size, SUBSAMPLING_LAYERS, settings.dropout)
        self.layers = nn.ModuleList(
            _AttentionLayer(size, settings.dropout) for _ in range(settings.num_layers)
        )
        self.norm = nn.LayerNorm(size)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the frames that are left, and how many these are."""
        frames, lengths = self.subsampling(frames, lengths)
        mask = mask_of(frames, lengths)
        frames = frames + _positions(frames)
        for layer in self.layers:
            frames = layer(frames, mask)
        return self.norm(frames), lengths


class _AttentionLayer(nn.Module):
    """Attention, then two layers for each frame by itself; each adds to what it is given."""

    def __init__(self, size: int, dropout: float) -> None:
        super().__init__()
        self.heads = ATTENTION_HEADS
        self.attention_norm = nn.LayerNorm(size)
        self.queries_keys_values = nn.Linear(size, 3 * size)
        self.attended = nn.Linear(size, size)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(size),
            nn.Linear(size, 2 * size),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(2 * size, size),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        batch, count, size = frames.shape
        made = self.queries_keys_values(self.attention_norm(frames))
        made = made.reshape(batch, count, 3, self.heads, size // self.heads)
        queries, keys, values = made.permute(2, 0, 3, 1, 4).unbind(0)
        scores = queries @ keys.transpose(2, 3) / math.sqrt(size / self.heads)
        weights = torch.softmax(scores.masked_fill(mask[:, None, None, :, 0] == 0, -1e9), dim=-1)
        heard = (weights @ values).transpose(1, 2).reshape(batch, count, size)
        frames = frames + self.dropout(self.attended(heard))
        return frames + self.dropout(self.feed_forward(frames))


def _positions(frames: Tensor) -> Tensor:
    """Sines and cosines of where frames are: `(frames, features)`."""
    count, size = frames.shape[1], frames.shape[2]
    numbers = torch.arange(count, device=frames.device, dtype=frames.dtype)
    steps = torch.arange(size // 2, device=frames.device, dtype=frames.dtype)
    angles = numbers[:, None] * torch.exp(-math.log(10_000.0) * steps / (size // 2))
    return torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)


def make_pooling(settings: EncoderSettings, size: int) -> nn.Module:
    """What makes `(batch, features)` of `(batch, frames, features)` and lengths."""
    match settings.pooling:
        case "mean":
            return MeanPooling()
        case "last":
            return LastPooling(settings.hidden_size)
        case "attention":
            return AttentionPooling(size)


class MeanPooling(nn.Module):
    """The mean of an excerpt's frames."""

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """`(batch, features)`"""
        sums = (frames * mask_of(frames, lengths)).sum(dim=1)
        return sums / lengths[:, None]


class LastPooling(nn.Module):
    """The last frame of an excerpt; of what goes backwards, whose last one is the first.

    Parameters
    ----------
    forward_size
        features that go forwards; those behind them go backwards
    """

    def __init__(self, forward_size: int) -> None:
        super().__init__()
        self.forward_size = forward_size

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """`(batch, features)`"""
        rows = torch.arange(frames.shape[0], device=frames.device)
        last = frames[rows, lengths - 1]
        backward = frames[:, 0, self.forward_size :]
        return torch.cat([last[:, 0 : self.forward_size], backward], dim=1)


class AttentionPooling(nn.Module):
    """A mean of an excerpt's frames, weighted by what is learned of each."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.score = nn.Linear(size, 1, bias=False)  # a softmax is blind to what all share

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """`(batch, features)`"""
        scores = self.score(frames).masked_fill(mask_of(frames, lengths) == 0, -1e9)
        return (frames * torch.softmax(scores, dim=1)).sum(dim=1)


def _of_recurrent_layers(settings: EncoderSettings) -> dict[str, int | float | bool]:
    return {
        "hidden_size": settings.hidden_size,
        "num_layers": settings.num_layers,
        "bidirectional": settings.bidirectional,
        "dropout": settings.dropout if settings.num_layers > 1 else 0.0,
        "batch_first": True,
    }


def _initial_states(settings: EncoderSettings, states: int) -> nn.Parameter:
    """`(states, layers and directions, 1, features)`: zeros, to begin with."""
    layers = settings.num_layers * (2 if settings.bidirectional else 1)
    return nn.Parameter(
        torch.zeros(states, layers, 1, settings.hidden_size),
        requires_grad=settings.initial_state == "learned",
    )
