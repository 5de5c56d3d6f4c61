"""The networks of demucs, faster on a CPU, with the same results (`benchmarks/demucs_speed.py`).

Each change is for the networks, and their settings, for which the tests show it to be equal; and
whatever a network holds, it is held against demucs' own when it is loaded.
"""

import copy
import logging
from typing import Any

import torch
from demucs.demucs import DConv, Demucs
from demucs.hdemucs import HDecLayer, HEncLayer
from demucs.transformer import LayerScale
from torch import nn

CHECKED_S = 1.0
GREATEST_DIFFERENCE = 1e-4
logger = logging.getLogger("beamsplitter")

# What is made of so many stays in the cache.
ROWS_AT_ONCE = 32
FRAMES_AT_ONCE = 2048
BRANCH = (nn.Conv1d, nn.GroupNorm, nn.GELU, nn.Conv1d, nn.GroupNorm, nn.GLU, LayerScale)


def checked_speed_up(module: nn.Module, name: str) -> nn.Module:
    """A loaded network made faster, or itself, where that would change what it gives.

    Both are run on a second of noise.

    Parameters
    ----------
    module
        Demucs, HDemucs or HTDemucs on a CPU, in eval mode
    name
        for the warning

    Returns
    -------
    A faster copy; or the module, with a warning, where they differ by more than 1e-4 of the
    loudest sample, or of 1
    """
    fast = speed_up(copy.deepcopy(module))
    plain_stems, fast_stems = _stems_of_noise(module), _stems_of_noise(fast)
    loudest = max(1.0, plain_stems.abs().max().item())
    difference = (plain_stems - fast_stems).abs().max().item() / loudest
    if difference <= GREATEST_DIFFERENCE:
        return fast
    logger.warning(
        "%s: the faster %s would differ by %.1e from demucs' own, which is used, and is slower; "
        "please report it with the settings of the network",
        name,
        type(module).__name__,
        difference,
    )
    return module


def _stems_of_noise(module: Any) -> torch.Tensor:
    samples = int(CHECKED_S * module.samplerate)
    if isinstance(module, Demucs):
        samples = module.valid_length(samples)
    noise = torch.randn(
        1, module.audio_channels, samples, generator=torch.Generator().manual_seed(0)
    )
    # A transformer would fill up the noise to the length that it was trained on.
    pads = getattr(module, "use_train_segment", None)
    if pads is not None:
        module.use_train_segment = False
    with torch.inference_mode():
        stems: torch.Tensor = module(noise)
    if pads is not None:
        module.use_train_segment = pads
    return stems


def speed_up(module: nn.Module) -> nn.Module:
    """Make a loaded network faster, in place.

    Parameters
    ----------
    module
        Demucs, HDemucs or HTDemucs

    Returns
    -------
    The same module; what it gives changes by rounding only
    """
    for change in CHANGES:
        change(module)
    return module


def avoid_attention_shortcut(module: nn.Module) -> None:
    """Make self-attention take the way of other attention.

    Torch has a shortcut for it, which on a CPU writes the whole matrix of weights, and is slower.
    """
    for part in module.modules():
        if isinstance(part, nn.MultiheadAttention):
            part.register_forward_pre_hook(_tell_query_from_key)


def make_branches_products(module: nn.Module) -> None:
    """Make residual branches products of matrices, with as few passes over them as can be."""
    for part in list(module.modules()):
        for name, child in part.named_children():
            if isinstance(child, DConv):
                part._modules[name] = nn.Sequential(*map(_residual, child.layers))


def _residual(layer: nn.Module) -> nn.Module:
    parts: list[Any] = list(layer.children())
    if tuple(map(type, parts)) == BRANCH and parts[4].num_groups == 1:
        return BranchOfProducts(layer)
    return Residual(layer)


def run_rows_in_pieces(module: nn.Module) -> None:
    """Make the residual branches take some frequencies after the other, bit for bit the same."""
    for part in list(module.modules()):
        if isinstance(part, HEncLayer | HDecLayer) and part.freq and "dconv" in part._modules:
            part._modules["dconv"] = RowsInPieces(part.get_submodule("dconv"))


class Residual(nn.Module):
    """What comes in, and what a layer makes of it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """The sum, `(rows, channels, frames)`."""
        return rows + self.layer(rows)


class BranchOfProducts(Residual):
    """One layer of a `DConv` on a CPU, and its sum with what comes in.

    Its first convolution is a product for all taps, and a sum of what they give, shifted. The
    second has so few input channels that the mean and variance of what it gives follow from their
    sums and products; so its normalisation, and the scale at the end, are put into its weights.

    Parameters
    ----------
    layer
        Conv1d of 3 taps, GroupNorm, GELU, Conv1d of 1 tap, GroupNorm, GLU, LayerScale
    """

    taps: torch.Tensor
    taps_bias: torch.Tensor
    weight: torch.Tensor
    gain: torch.Tensor
    shift: torch.Tensor

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        taps, self.norm, self.activation, self.out, self.out_norm, _, scale = layer
        self.dilation: int = taps.dilation[0]
        weights = {
            "taps": taps.weight.permute(2, 0, 1).flatten(0, 1),
            "taps_bias": taps.bias[:, None],
            "weight": self.out.weight.squeeze(2),
            "gain": torch.cat([scale.scale, torch.ones_like(scale.scale)]) * self.out_norm.weight,
            "shift": torch.cat([scale.scale, torch.ones_like(scale.scale)]) * self.out_norm.bias,
        }
        for name, value in weights.items():
            self.register_buffer(name, value.detach().clone(), persistent=False)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """The sum, `(rows, channels, frames)`."""
        if rows.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return super().forward(rows)
        hidden = self.activation(self.norm(self._convolve_taps(rows)))
        weight, bias = self._normalised(hidden)
        output = torch.empty_like(rows)
        each = (tensor.split(FRAMES_AT_ONCE, dim=-1) for tensor in (hidden, rows, output))
        for hidden_frames, frames, out in zip(*each, strict=True):
            made = torch.baddbmm(bias[:, :, None], weight, hidden_frames)
            torch.add(frames, nn.functional.glu(made, dim=1), out=out)
        return output

    def _convolve_taps(self, rows: torch.Tensor) -> torch.Tensor:
        count, _, frames = rows.shape
        products = torch.bmm(self.taps.expand(count, -1, -1), rows)
        before, here, after = products.view(count, 3, -1, frames).unbind(1)
        hidden = here + self.taps_bias
        reach = min(self.dilation, frames)
        hidden[..., reach:] += before[..., : frames - reach]
        hidden[..., : frames - reach] += after[..., reach:]
        return hidden

    def _normalised(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights of each row, `(rows, channels, hidden channels)`, and biases."""
        frames = hidden.shape[-1]
        sums = hidden.sum(-1, dtype=torch.float64)
        products = torch.bmm(hidden, hidden.transpose(1, 2)).double()
        weight, bias = self.weight.double(), self.out.bias.double()
        count = len(bias) * frames
        mean = (sums @ weight.sum(0) + frames * bias.sum()) / count
        squares = (products * (weight.T @ weight)).sum((1, 2))
        squares += 2 * (sums @ (weight.T @ bias)) + frames * (bias @ bias)
        variance = (squares / count - mean.square()).clamp_min(0)
        deviation = (variance + self.out_norm.eps).sqrt()
        gain = self.gain.double() / deviation[:, None]
        shift = gain * (bias - mean[:, None]) + self.shift.double()
        return (gain[:, :, None] * weight).float(), shift.float()


class RowsInPieces(nn.Module):
    """Runs a module on some rows of a batch after the other: what it makes stays in the cache.

    Parameters
    ----------
    module
        takes and gives `(rows, channels, frames)`, each row on its own
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """What the module gives for all rows, `(rows, channels, frames)`."""
        at_once = ROWS_AT_ONCE if rows.device.type == "cpu" else len(rows)
        pieces = [self.module(piece) for piece in rows.split(at_once)]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _tell_query_from_key(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    query, *others = inputs
    return (query.view_as(query), *others)


CHANGES = (avoid_attention_shortcut, make_branches_products, run_rows_in_pieces)
"""What makes a network faster, in the order in which it is done."""
