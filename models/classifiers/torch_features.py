"""Mel bands of a waveform in torch, as `audio.features` has them in NumPy, for what is exported.

Here stands what TorchScript compiles, by operators that torch 1.9 has.
"""

import math

import torch
from torch import Tensor, nn

from ...audio.features.settings import FeatureSettings, LogMelSettings, MelSettings
from ...audio.features.spectral import mel_filters, padded_window
from .errors import ClassifierError

KINDS = ("mel", "log_mel")


def require_in_torch(settings: FeatureSettings) -> None:
    """Refuse features that are not computed in torch.

    Raises
    ------
    ClassifierError
        of another kind, without a sample rate, or of each channel
    """
    if settings.kind not in KINDS:
        raise ClassifierError(
            f"features of the kind {settings.kind} can't be part of a package: those that can are "
            f"{', '.join(KINDS)}"
        )
    if settings.sample_rate is None:
        raise ClassifierError(
            "features of no fixed sample_rate can't be part of a package, which has one: make the "
            "feature set with a sample_rate"
        )
    if not settings.mono:
        raise ClassifierError(
            "features of each channel can't be part of a package, which may be given any number "
            "of them: make the feature set with mono"
        )


def torch_features(settings: FeatureSettings) -> "MelFeatures":
    """The module that computes features; ClassifierError if there is none, see above."""
    require_in_torch(settings)
    assert isinstance(settings, MelSettings | LogMelSettings)
    return MelFeatures(settings)


class MelFeatures(nn.Module):
    """Power in mel bands, or its level in dB, of a signal in memory.

    Parameters
    ----------
    settings
        with a sample rate
    """

    window: Tensor
    filters: Tensor

    def __init__(self, settings: MelSettings | LogMelSettings) -> None:
        super().__init__()
        assert settings.sample_rate is not None
        self.n_fft = settings.n_fft
        self.hop_length = settings.hop_length
        self.reach = settings.n_fft // 2 if settings.center else 0
        self.pad_mode = settings.pad_mode
        self.power = settings.power
        # What there has to be for a frame.
        self.least_samples = 1 if settings.center else settings.n_fft
        filters = mel_filters(settings, settings.sample_rate)
        self.register_buffer("window", torch.from_numpy(padded_window(settings)))
        self.register_buffer("filters", torch.from_numpy(filters))
        self.is_level = isinstance(settings, LogMelSettings)
        self.amin, self.top_db, self.refers_to_highest, self.zero_db = 1e-10, -1.0, False, 0.0
        if isinstance(settings, LogMelSettings):
            self.amin = settings.amin
            # TorchScript is best told of a number in any case.
            self.top_db = -1.0 if settings.top_db is None else settings.top_db
            self.refers_to_highest = settings.ref == "max"
            if settings.ref != "max":
                self.zero_db = 10 * math.log10(max(settings.ref, settings.amin))

    def forward(self, signal: Tensor) -> Tensor:
        """The features of a signal that is all there is.

        Parameters
        ----------
        signal
            float32 `(samples,)` at the settings' sample rate; zeros are added where it is too
            short for a frame

        Returns
        -------
        float32 `(frames, bins)`
        """
        missing = self.least_samples - signal.shape[0]
        if missing > 0:
            signal = torch.constant_pad_nd(signal, [0, missing])
        padded = self.padded(signal)
        # The operator itself: what torch.stft makes of it, TorchScript of torch 1.9 can't read.
        spectrum = torch.ops.aten.stft(
            padded[None], self.n_fft, self.hop_length, self.n_fft, self.window, False, True, True
        )[0]
        parts = torch.view_as_real(spectrum)
        powers = (parts * parts).sum(dim=2)
        if self.power != 2.0:
            powers = powers ** (self.power / 2)
        bands = (self.filters @ powers).transpose(0, 1)
        return self.levels(bands) if self.is_level else bands

    def padded(self, signal: Tensor) -> Tensor:
        """With what is beyond its ends, for frames that are centred there: as `numpy.pad`."""
        if self.reach == 0:
            return signal
        samples = signal.shape[0]
        places = torch.arange(-self.reach, samples + self.reach, device=signal.device)
        inside = places
        if self.pad_mode == "reflect":
            turn = max(1, samples - 1)
            inside = turn - (torch.remainder(places, 2 * turn) - turn).abs()
        elif self.pad_mode == "symmetric":
            there = torch.remainder(places, 2 * samples)
            inside = torch.minimum(there, 2 * samples - 1 - there)
        inside = inside.clamp(0, samples - 1)
        padded = signal[inside]
        if self.pad_mode == "constant":
            padded = padded * (inside == places).to(signal.dtype)
        return padded

    def levels(self, bands: Tensor) -> Tensor:
        """In dB, above a floor that is `top_db` below the highest of the signal."""
        levels = 10 * torch.log10(bands.clamp(min=self.amin))
        highest = levels.max()
        if self.top_db >= 0:
            levels = torch.maximum(levels, highest - self.top_db)
        if self.refers_to_highest:
            return levels - highest
        return levels - self.zero_db
