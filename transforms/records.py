"""What moves between the steps.

Only `Recording`, `PartReference`, `PartReceipt`, `Receipt` and `Failure` cross a shuffle: they
are small and hold no samples. `Track` holds the arrays and stays inside the fused stage: there a
step changes the track that it is given. In graphs that fan out, such as those of one's own, each
step has a copy (`Step.owns_tracks`).
"""

import copy
import os
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..audio.decoding.audio_reader import AudioInfo
from ..audio.parts import Part
from ..models.evaluation.rows import Row
from ..models.separators.base import Label


@dataclass(frozen=True)
class LabelShare:
    """How much of a recording has a label.

    Attributes
    ----------
    share
        of its time, in [0, 1]
    longest_s
        the longest stretch of time
    confidence
        mean of the model's, by time; None if it does not say
    """

    label: str
    share: float
    longest_s: float
    confidence: float | None = None


@dataclass(frozen=True)
class SignalLevel:
    """The level of the mixture or of a stem, dB re full scale; None where it is silent."""

    signal: str
    rms_db: float | None
    peak_db: float | None


@dataclass(frozen=True)
class FileReceipt:
    """One published file: `name` is its name in the recording's folder.

    Of a stem, `sample_rate` and `channels` are told where they are not the recording's, and
    `gain_db` where it was turned down together with the others. Of scores, `scores` are what the
    file tells of all frames, and `references` a digest of which files the true stems were. Of
    labels, `labels` say how much of the recording each has. Of what the page shows, `levels` are
    those of its signals.
    """

    name: str
    branch: str
    stem: str | None
    sha256: str
    crc32c: str
    size_bytes: int
    frames: int | None = None
    duration_s: float | None = None
    clipped_samples: int | None = None
    sample_rate: int | None = None
    channels: int | None = None
    gain_db: float | None = None
    scores: tuple[Row, ...] = ()
    references: str | None = None
    labels: tuple[LabelShare, ...] = ()
    levels: tuple[SignalLevel, ...] = ()


@dataclass(frozen=True)
class BranchFacts:
    """What made the files of a branch.

    Attributes
    ----------
    digest
        of the settings: the branch is done again when it changes
    settings
        in words
    made
        when, as UTC in ISO 8601
    work_s
        seconds of work on the recording, on all branches that were made with this one; of a
        long recording the sum over its parts
    versions
        of the packages that made it
    """

    digest: str
    settings: dict[str, Any] = field(default_factory=dict)
    made: str | None = None
    work_s: float | None = None
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PendingRecording:
    """A recording of which something is still to be done: a reference, no samples.

    `folder` is its folder in the output tree, `generation` changes with the file's content,
    `todo` are the branches that are still to be done, `kept` the published files of the branches
    that are done, `kept_branches` what made them, `stale` the names of the other files that an
    earlier manifest names, `message` the settled bytes of the event.
    """

    element: str
    uri: str
    folder: str
    size_bytes: int
    generation: str
    todo: tuple[str, ...]
    kept: tuple[FileReceipt, ...] = ()
    kept_branches: dict[str, BranchFacts] = field(default_factory=dict, hash=False)
    stale: tuple[str, ...] = ()
    message: bytes = b""

    @property
    def title(self) -> str:
        """What people call it: its path as its folder has it, with the extension of its file."""
        parent, name = os.path.dirname(self.folder), os.path.basename(self.uri)
        return os.path.join(parent, name)


@dataclass(frozen=True, kw_only=True)
class Recording(PendingRecording):
    """A recording whose header was read.

    `start_sample` and `total_samples` are the range of the file that the job asks for; `scratch` is
    the folder of the output tree that its parts leave their files in.
    """

    info: AudioInfo
    start_sample: int
    total_samples: int
    scratch: str = ""

    @property
    def duration_s(self) -> float:
        """Length of the range that is done, in seconds."""
        return self.total_samples / self.info.sample_rate


@dataclass(frozen=True)
class PartReference:
    """One part of one recording to do."""

    recording: Recording
    part: Part


@dataclass(frozen=True)
class PartReceipt:
    """What one part of a long recording left in the scratch files of its branch."""

    recording: Recording
    part: Part
    branch: str
    files: tuple[tuple[str, str], ...]  # (stem or "mixture", name of the scratch file)
    work_s: float = 0.0


@dataclass(frozen=True)
class Receipt:
    """A recording that is finished: its manifest is written (or was there before).

    `message` are the settled bytes of the event that asked for it.
    """

    element: str
    folder: str
    duration_s: float
    files: tuple[FileReceipt, ...]
    skipped: bool = False
    message: bytes = b""


@dataclass(frozen=True)
class FolderLabels:
    """The labels of a recording, by the folder of its results."""

    folder: str
    shares: tuple[LabelShare, ...]


@dataclass(frozen=True)
class FeatureFile:
    """The file of a recording's features, in its folder."""

    folder: str
    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class UploadedPlot:
    """A published plot of a recording."""

    recording: Recording
    file: FileReceipt


@dataclass(frozen=True)
class Failure:
    """A dead letter: what failed, in which step, and why; of a part, in which generation."""

    element: str
    step: str
    exception: str
    message: str
    uri: str | None = None
    part_index: int | None = None
    generation: str | None = None
    traceback: str | None = None


@dataclass
class Track:
    """A recording, or a part of one, on its way, with the arrays that its steps made.

    Attributes
    ----------
    binary
        the bytes of its file
    samples
        float32 `(channels, samples)`: the part with its context
    n_fft, hop_length
        samples: of `stft` and of all that is made of it
    stft, phase
        complex64 `(channels, bins, frames)`
    magnitude, nearest, net
        float32, the same shape: of the mixture, of what repeats in it, and of what that leaves
    masks
        float32 in [0, 1], the same shape, by stem
    stems
        float32 `(channels, samples)` of the part's stem range, by name. Behind EncodeStems and
        LoadStems they are what their plots are made of, at the rate of their files
    powers
        float32 `(rows, columns)`: the power of the pixels of a plot, row 0 the lowest, by stem or
        "mixture"
    plots
        PNG files, by stem or "mixture"; the combined one by no name
    files
        receipts of what was published

    `statistics` are mean and deviation of the whole recording, for separators that normalise by
    them, where the part is not the whole; `failure` says why a model failed; `labels` are those of
    a model that gives some.
    """

    reference: PartReference
    binary: bytes | None = None
    samples: np.ndarray | None = None
    n_fft: int | None = None
    hop_length: int | None = None
    stft: np.ndarray | None = None
    magnitude: np.ndarray | None = None
    phase: np.ndarray | None = None
    nearest: np.ndarray | None = None
    net: np.ndarray | None = None
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    statistics: tuple[float, float] | None = None
    failure: Failure | None = None
    labels: tuple[Label, ...] = ()
    stems: dict[str, np.ndarray] = field(default_factory=dict)
    powers: dict[str, np.ndarray] = field(default_factory=dict)
    plots: dict[str, bytes] = field(default_factory=dict)
    source_sha256: str | None = None
    files: tuple[FileReceipt, ...] = ()
    part_files: tuple[tuple[str, str, str], ...] = ()  # (branch, stem, name of the scratch file)
    begun_s: float = field(default_factory=time.monotonic)
    work_before_s: float = 0.0

    def copy(self) -> "Track":
        """One that may be changed beside this one; they share the arrays."""
        copied = copy.copy(self)
        for name in ("masks", "stems", "powers", "plots"):
            setattr(copied, name, dict(getattr(self, name)))
        return copied

    @property
    def element(self) -> str:
        """What the event calls the recording: its path, or its name below the data's location."""
        return self.recording.element

    @property
    def sample_rate(self) -> int:
        """Of `samples`, in Hz."""
        return self.recording.info.sample_rate

    @property
    def work_s(self) -> float:
        """Seconds of work up to now: since this process has the track, and on the parts before."""
        return self.work_before_s + time.monotonic() - self.begun_s

    def add_files(self, *files: FileReceipt) -> None:
        """Note published files, once: a step may be tried again with this very record."""
        self.files = tuple(dict.fromkeys((*self.files, *files)))

    def add_part_file(self, branch: str, stem: str, name: str) -> None:
        """Note a scratch file of this part, once."""
        self.part_files = tuple(dict.fromkeys((*self.part_files, (branch, stem, name))))

    @property
    def recording(self) -> Recording:
        """The recording that this part is of."""
        return self.reference.recording

    @property
    def part(self) -> Part:
        """Where this part lies in its recording."""
        return self.reference.part


def there(array: np.ndarray | None, name: str) -> np.ndarray:
    """An array that a step before this one has made.

    Raises
    ------
    ValueError
        it did not
    """
    if array is None:
        raise ValueError(f"the track has no {name} yet: put the step that makes it before this one")
    return array
