"""A classifier as a module that takes a waveform, as jobs and Audacity hand one over."""

import torch
from torch import Tensor, nn

from ..classifiers.figures import THRESHOLD
from .audio_models import WaveformToLabels, check_waveform


class ClassifierModel(WaveformToLabels):
    """The labels of each excerpt of a waveform.

    Parameters
    ----------
    classifier
        logits `(batch, labels)` of frames `(batch, frames, bins)` and their lengths
    features
        frames `(frames, bins)` of a signal `(samples,)`
    excerpt_samples
        of each; what is left at the end is one, too
    sample_rate
        Hz
    multi_label
        whether an excerpt may have several labels, or none
    """

    def __init__(
        self,
        classifier: nn.Module,
        features: nn.Module,
        *,
        excerpt_samples: int,
        sample_rate: int,
        multi_label: bool,
    ) -> None:
        super().__init__(classifier)
        self.features = features
        self.excerpt_samples = excerpt_samples
        self.sample_rate = sample_rate
        self.multi_label = multi_label
        self.threshold = THRESHOLD
        self.eval()

    def do_forward_pass(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Labels, and start and end of each, as Audacity takes them."""
        labels, times, _ = self.labels_with_confidences(x)
        return labels, times

    @torch.jit.export
    def labels_with_confidences(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The labels of a waveform, and how sure they are.

        Parameters
        ----------
        x
            float32 `(channels, samples)`; their mean is listened to

        Returns
        -------
        int64 `(labels,)`: which; float32 `(labels, 2)`: start and end in seconds; float32
        `(labels,)`: probabilities. One for each excerpt, or all that are more likely than not
        """
        check_waveform(x)
        probabilities, times = self.excerpt_probabilities(x)
        if self.multi_label:
            found = torch.nonzero(probabilities >= self.threshold)
            excerpts, labels = found[:, 0], found[:, 1]
            return labels, times[excerpts], probabilities[excerpts, labels]
        confidences, labels = probabilities.max(dim=1)
        return labels, times, confidences

    def excerpt_probabilities(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Float32 `(excerpts, labels)`, and `(excerpts, 2)`: start and end in seconds."""
        signal = x.mean(dim=0)
        samples = signal.shape[0]
        starts = torch.arange(0, samples, self.excerpt_samples, device=x.device)
        ends = (starts + self.excerpt_samples).clamp(max=samples)
        frames: list[Tensor] = []
        counts: list[int] = []
        for start in range(0, samples, self.excerpt_samples):
            made = self.features(signal[start : start + self.excerpt_samples])
            frames.append(made)
            counts.append(made.shape[0])
        longest = max(counts)
        # Not pad_sequence, which torch 1.9 has with other operands.
        padded = [
            torch.constant_pad_nd(each, [0, 0, 0, longest - each.shape[0]]) for each in frames
        ]
        logits = self.model(torch.stack(padded), torch.tensor(counts, device=x.device))
        times = torch.stack([starts, ends], dim=1).float() / self.sample_rate
        if self.multi_label:
            return torch.sigmoid(logits), times
        return torch.softmax(logits, dim=1), times
