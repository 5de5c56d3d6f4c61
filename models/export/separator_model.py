"""A separator as a module that takes a waveform, as Audacity hands one over."""

import torch
from torch import Tensor, nn

from ..separators.base import ModelError, TorchSeparator
from .audio_models import WaveformToWaveform

# Of the mixture's deviation, as `mixing` has it.
SILENCE = 1e-8


class SeparatorModel(WaveformToWaveform):
    """The stems of a separator, a row for each of their channels.

    Parameters
    ----------
    model
        `(batch, channels, samples)` to `(batch, stems, channels or 1, samples)`
    channels
        that it takes; a waveform of one stands for all
    normalizes
        whether it is given a mixture of mean 0 and deviation 1
    least_samples, step_samples
        it takes so many samples, and any number of steps more: a waveform is filled up with zeros
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        channels: int,
        normalizes: bool,
        least_samples: int = 1,
        step_samples: int = 1,
    ) -> None:
        super().__init__(model)
        self.channels = channels
        self.normalizes = normalizes
        self.least_samples = least_samples
        self.step_samples = step_samples
        self.silence = SILENCE

    def do_forward_pass(self, x: Tensor) -> Tensor:
        """`(channels or 1, samples)` to `(stems * channels, samples)`."""
        samples = x.shape[1]
        mean, deviation = torch.zeros(1), torch.ones(1)
        if self.normalizes:
            mixture = x.mean(dim=0)
            mean, deviation = mixture.mean(), mixture.std() + self.silence
            x = (x - mean) / deviation
        x = x.expand(self.channels, samples)
        if self.least_samples > 1 or self.step_samples > 1:
            steps = -(-max(0, samples - self.least_samples) // self.step_samples)
            missing = self.least_samples + steps * self.step_samples - samples
            x = torch.constant_pad_nd(x, [0, missing])
        stems = self.model(x[None])[0].expand(-1, self.channels, -1)
        rows = stems.reshape(-1, stems.shape[2])[:, 0:samples]
        return rows * deviation + mean if self.normalizes else rows


def model_of(separator: TorchSeparator) -> SeparatorModel:
    """A separator as a module.

    Raises
    ------
    ModelError
        it works on any number of channels at once, which a package can't
    """
    lengths = separator.block_lengths
    return SeparatorModel(
        as_module(separator),
        channels=channels_of(separator),
        normalizes=separator.normalizes,
        least_samples=lengths.least if lengths else 1,
        step_samples=lengths.step if lengths else 1,
    )


def as_module(separator: TorchSeparator) -> nn.Module:
    """What a separator does with a batch as a torch module, which TorchScript can compile.

    It has the attributes of the separator, and the methods that its class adds.
    """
    cls = type(separator)
    if cls.forward is TorchSeparator.forward:
        return separator.module
    added = {
        name: value
        for base in reversed(cls.__mro__)
        if base not in TorchSeparator.__mro__
        for name, value in vars(base).items()
        if not name.startswith("__")
    }
    module = type(cls.__name__, (nn.Module,), {**added, "__module__": cls.__module__})()
    for name, value in vars(separator).items():
        setattr(module, name, value)
    return module.eval()


def channels_of(separator: TorchSeparator) -> int:
    """How many channels it takes at once: 1 if it takes any number, and each for itself.

    Raises
    ------
    ModelError
        it takes any number, and they have to do with each other
    """
    if separator.channels is not None:
        return separator.channels
    generator = torch.Generator().manual_seed(0)
    both = 0.1 * torch.randn(1, 2, separator.longest_block_samples or 1, generator=generator)
    try:
        with torch.inference_mode():
            together = separator.forward(both).expand(-1, -1, 2, -1)
            each_alone = [separator.forward(both[:, each : each + 1]) for each in (0, 1)]
    # It is anyone's code.
    except Exception as error:
        raise ModelError(
            f"{separator.name}: fails on two channels, and says that it takes any number: say in "
            "its class how many it takes, `channels = 1`, and export it again"
        ) from error
    if not torch.allclose(together, torch.cat(each_alone, dim=2), rtol=0, atol=1e-5):
        raise ModelError(
            f"{separator.name}: takes any number of channels, and makes something else of two than "
            "of each: say in its class how many it takes, `channels = 2`, and export it again"
        )
    return 1
