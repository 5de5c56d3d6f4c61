"""Model packages made by the recipe of audacitorch, for tests."""

import json
import warnings

import torch

RATE = 8000
METADATA = {
    "sample_rate": RATE,
    "domain_tags": ["music", "speech", "environmental"],
    "short_description": "Use me to boost volume by 3dB :).",
    "long_description": "This description can be a max of 280 characters aaaaaaaaaaaaaaaaaaaa.",
    "tags": ["volume boost"],
    "labels": ["boosted"],
    "effect_type": "waveform-to-waveform",
    "multichannel": False,
}


class Wrapper(torch.nn.Module):
    """The recipe of audacitorch: checks around a model's own forward pass."""

    def __init__(self, model):
        super().__init__()
        self.model = model.eval()

    def check(self, x: torch.Tensor):
        assert x.ndim == 2, "input must have two dimensions: (n_channels, n_samples)"
        assert x.shape[-1] > x.shape[0], "number of channels exceeds number of samples"

    def forward(self, x: torch.Tensor):
        self.check(x)
        output = self.model(x)
        self.check(output)
        return output


class LabelWrapper(torch.nn.Module):
    """The recipe for labels."""

    def __init__(self, model):
        super().__init__()
        self.model = model.eval()

    def forward(self, x: torch.Tensor):
        assert x.ndim == 2
        classes, times = self.model(x)
        assert torch.all(times >= 0)
        assert torch.all(times[:, 0] < times[:, 1])
        assert classes.ndim == 1
        assert classes.shape[0] == times.shape[0]
        return classes, times


class Volume(torch.nn.Module):
    def forward(self, x: torch.Tensor):
        return x * 2


class Twice(torch.nn.Module):
    """Two stems: the mixture twice as loud, and silence."""

    def forward(self, x: torch.Tensor):
        return torch.cat([x * 2, x * 0])


class Halves(torch.nn.Module):
    """Low and high frequencies, which sum to the mixture."""

    def __init__(self):
        super().__init__()
        self.low = torch.nn.Conv1d(1, 1, 31, padding=15, bias=False)
        with torch.no_grad():
            self.low.weight.copy_(torch.hann_window(33)[1:-1] / 16)

    def forward(self, x: torch.Tensor):
        low = self.low(x[:1].unsqueeze(0)).squeeze(0)
        return torch.cat([low, x[:1] - low])


class SpectralHalves(torch.nn.Module):
    """Loud and quiet bins, by a spectrogram, with the shapes and the device in the graph."""

    def __init__(self):
        super().__init__()
        self.register_buffer("window", torch.hann_window(256))
        self.register_buffer("floor", torch.tensor(0.5), persistent=False)

    def forward(self, x):
        spectrum = torch.stft(x, 256, 64, window=self.window, return_complex=True)
        with torch.no_grad():
            gain = torch.full((1,), 1.0, device=x.device)
        mask = (spectrum.abs() > self.floor).float() * gain
        loud = torch.istft(spectrum * mask, 256, 64, window=self.window)
        loud = torch.nn.functional.pad(loud, (0, x.shape[-1] - loud.shape[-1]))
        first, second = torch.chunk(torch.cat([loud, x - loud]), 2)
        return torch.cat([first, second])


class MidSide(torch.nn.Module):
    """A multichannel one: the sum, and the difference to the last channel."""

    def forward(self, x: torch.Tensor):
        mid = x.mean(dim=0, keepdim=True)
        return torch.cat([mid, mid - x[-1:], torch.zeros_like(x)])


class Loudness(torch.nn.Module):
    """Labels each tenth of a second as quiet (0) or loud (1)."""

    def forward(self, x: torch.Tensor):
        frames = x.shape[-1] // 800
        power = x[0, : frames * 800].reshape(frames, 800).pow(2).mean(dim=1)
        start = torch.arange(frames, device=x.device) * 0.1
        return (power > 0.1).long(), torch.stack([start, start + 0.1], dim=1)


def write_package(folder, model, how="script", samples=4000, **changes):
    """A package of a wrapped model; "pt2" exports it with a dynamic length.

    `samples` are those of what it is traced or exported with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {**METADATA, **changes}
    (folder / "metadata.json").write_text(json.dumps(metadata))
    labels = metadata["effect_type"] == "waveform-to-labels"
    wrapped = (LabelWrapper if labels else Wrapper)(model)
    example = torch.randn(2 if metadata["multichannel"] else 1, samples)
    if how == "pt2":
        export(folder / "model.pt2", model, example)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scripted = (
                torch.jit.script(wrapped) if how == "script" else torch.jit.trace(wrapped, example)
            )
            scripted.save(str(folder / "model.pt"))
    return str(folder)


def write_labeler(folder, model, labels=("a", "b")):
    """A package of a model without the checks of the wrapper, as a traced one is."""
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {**METADATA, "labels": [*labels], "effect_type": "waveform-to-labels"}
    (folder / "metadata.json").write_text(json.dumps(metadata))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(model).save(str(folder / "model.pt"))
    return str(folder)


def export(path, model, example, dynamic=True):
    length = {1: torch.export.Dim.DYNAMIC}
    exported = torch.export.export(
        model.eval(), (example,), dynamic_shapes=(length,) if dynamic else None
    )
    torch.export.save(exported, path)
