"""Modules that Audacity runs: their one method, and what is checked before and after it.

The contract is that of audacitorch (github.com/hugofloresgarcia/audacitorch). `torch.jit.script`
keeps all checks; a trace would drop them.
"""

import torch
from torch import Tensor, nn


def check_waveform(waveform: Tensor) -> None:
    """AssertionError if it is not `(channels, samples)`, with more samples than channels."""
    assert waveform.ndim == 2, "a waveform has two axes: (channels, samples)"
    assert waveform.shape[1] > waveform.shape[0], (
        f"a waveform is (channels, samples), with more samples than channels: not "
        f"({waveform.shape[0]}, {waveform.shape[1]})"
    )


def check_labels(labels: Tensor, timestamps: Tensor) -> None:
    """AssertionError if they are not `(labels,)`, and `(labels, 2)` with starts and ends."""
    assert labels.ndim == 1, "labels have one axis: the indices of those in metadata.json"
    assert timestamps.ndim == 2 and timestamps.shape[1] == 2, (
        "timestamps are (labels, 2): start and end in seconds"
    )
    assert labels.shape[0] == timestamps.shape[0], "each label has its start and its end"
    assert bool(torch.all(timestamps >= 0)), "timestamps are at least 0"
    assert bool(torch.all(timestamps[:, 0] < timestamps[:, 1])), "a label ends after its start"


class AudioModel(nn.Module):
    """A module around a model, in evaluation.

    Parameters
    ----------
    model
        what `do_forward_pass` calls: `self.model`
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval()


class WaveformToWaveform(AudioModel):
    """Makes waveforms of a waveform: define `do_forward_pass`."""

    def forward(self, x: Tensor) -> Tensor:
        """What `do_forward_pass` makes of it; AssertionError if either is no waveform."""
        check_waveform(x)
        output = self.do_forward_pass(x)
        check_waveform(output)
        return output

    def do_forward_pass(self, x: Tensor) -> Tensor:
        """Define it.

        Parameters
        ----------
        x
            float32 `(channels, samples)` at the rate in `metadata.json`, full scale 1; where
            `multichannel` is false, one channel: the sum of those that there are. Otherwise one
            or two

        Returns
        -------
        float32 `(labels, samples)`: a waveform for each label, as long as `x`
        """
        raise NotImplementedError("implement me!")


class WaveformToLabels(AudioModel):
    """Makes labels of a waveform: define `do_forward_pass`."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What `do_forward_pass` makes of it; AssertionError if it is no waveform, or no labels."""
        check_waveform(x)
        output = self.do_forward_pass(x)
        assert isinstance(output, tuple), "the output is a tuple: (labels, timestamps)"
        assert len(output) == 2, "the output is a tuple of two: (labels, timestamps)"
        labels, timestamps = output
        check_labels(labels, timestamps)
        return labels, timestamps

    def do_forward_pass(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Define it.

        Parameters
        ----------
        x
            as of `WaveformToWaveform`

        Returns
        -------
        int64 `(labels,)`: their indices in `labels` of `metadata.json`; float32 `(labels, 2)`:
        start and end of each in seconds from the start of `x`. There may be none
        """
        raise NotImplementedError("implement me!")
