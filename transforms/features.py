"""Features of recordings, in the pass that decodes them: TakeFeatures, and joining of parts."""

import contextlib
import functools
import io
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..audio.features.drawing import (
    FeaturePanel,
    draw_features,
    is_drawn,
    joined_waveform,
    pooled_frames,
    pooled_waveform,
)
from ..audio.features.extraction import frame_grid, highest_level_db, part_frames
from ..audio.features.finishing import finished
from ..audio.features.settings import FeatureSettings
from ..audio.parts import JOIN_BLOCK_SAMPLES, Part, excerpt_range
from ..models.feature_sets.arrays import ArrayEntry
from ..models.feature_sets.recording_file import FORMAT, write_recording_file
from ..models.feature_sets.statistics import BinSums
from ..storage import OutputTree
from .feature_settings import MIXTURE, ExcerptSettings, FeatureSetSettings
from .published_files import (
    PublishingStep,
    feature_plot_name,
    part_file_name,
    published,
    published_file,
    require_unchanged,
)
from .records import FileReceipt, PartReceipt, Recording, Track
from .settings import SplitSettings
from .stem_files import format_of
from .track_signals import Signal, file_signal, held_mixture, stored_mixture

WAVEFORM = "waveform"  # no set and excerpt is called like it: those have a slash
# What is larger waits on the disk until it is written.
HELD_BYTES = 64 << 20

Piece = Callable[[], np.ndarray]


class TakeFeatures(PublishingStep):
    """`samples` and `stems` of a whole recording to its features.

    Of a part, those of the mixture go to a file for JoinParts, which takes those of stems.

    Raises
    ------
    TooShortAudioError
        the recording ends before the excerpt begins, or has not one frame
    LowSampleRateError
        bands are asked for that its sample rate does not have
    """

    branch = "features"

    def apply(self, record: Track) -> Iterable[Track]:
        """Adds to `files`, or to `part_files`."""
        recording, wanted = record.recording, self.settings.features
        mixture = held_mixture(record, self.tree.storage)
        if not record.part.is_whole:
            self._leave_part(record, mixture)
            return [record]
        require_unchanged(recording, self.tree.storage)
        rate = format_of(recording.info, self.settings.stems).sample_rate
        stems = {stem: Signal.held(record.stems[stem], rate) for stem in wanted.stems}
        signals = {name: stems.get(name, mixture) for name in wanted.of}
        excerpts = excerpts_of(wanted.excerpts, mixture)

        def pieces(set_name: str, signal: str, index: int) -> list[Piece]:
            excerpt = _at_rate_of(signals[signal], excerpts[index], mixture)
            frames = take_frames(signals[signal], excerpt, wanted.sets[set_name])
            return [lambda: frames]

        waveforms = {}
        if wanted.plots:
            (excerpt,) = excerpts
            waveforms = {
                name: pooled_within(signal, _at_rate_of(signal, excerpt, mixture))
                for name, signal in signals.items()
            }
        files = write_features(
            pieces, signals, excerpts, waveforms, recording, self.settings, self.tree
        )
        record.add_files(*files)
        return [record]

    def _leave_part(self, record: Track, mixture: Signal) -> None:
        wanted, part = self.settings.features, record.part
        if MIXTURE not in wanted.of or wanted.excerpts.take == "chorus":
            return
        core = range(part.start_sample, part.stop_sample)
        excerpts = excerpts_of(wanted.excerpts, mixture)
        pieces = {
            _piece_name(name, index): frames
            for index, excerpt in enumerate(excerpts)
            for name, settings in wanted.sets.items()
            if (frames := take_frames(mixture, excerpt, settings, core)).shape[-1]
        }
        if wanted.plots:
            pieces[WAVEFORM] = pooled_within(mixture, excerpts[0], core)
        data = io.BytesIO()
        np.savez(data, allow_pickle=False, **pieces)
        file_name = part_file_name(record.recording, part, "features", MIXTURE)
        self.tree.write(data.getvalue(), file_name)
        record.add_part_file("features", MIXTURE, file_name)


def excerpts_of(settings: ExcerptSettings, mixture: Signal) -> list[range]:
    """Of which of a recording's samples features are taken.

    Raises
    ------
    TooShortAudioError
        it ends before the first excerpt begins
    """
    rate, total = mixture.sample_rate, mixture.total_samples
    if settings.take == "chorus":
        start_s = _chorus_start_s(settings.duration_s or 0.0, mixture)
        start, samples = excerpt_range(total, rate, start_s, settings.duration_s)
        return [range(start, start + samples)]
    start, samples = excerpt_range(total, rate, settings.start_s, settings.duration_s)
    if settings.take != "every":
        return [range(start, start + samples)]
    hop = max(1, round((settings.hop_s or settings.duration_s or 0.0) * rate))
    # What is shorter than an excerpt is one of its own length; else each has all its samples.
    return [range(first, first + samples) for first in range(start, total - samples + 1, hop)]


def _chorus_start_s(clip_s: float, mixture: Signal) -> float:
    # What finds choruses takes half a second to import.
    from ..audio.chorus import find_choruses

    borders = range(0, mixture.total_samples, JOIN_BLOCK_SAMPLES)
    blocks = (
        mixture.read(start, min(start + JOIN_BLOCK_SAMPLES, mixture.total_samples))
        for start in borders
    )
    return find_choruses(blocks, mixture.sample_rate, clip_s=clip_s).excerpt_start_s


def _at_rate_of(signal: Signal, samples: range, mixture: Signal) -> range:
    """A range of the mixture's samples as one of another signal's."""
    if signal.sample_rate == mixture.sample_rate:
        return samples
    start, stop = (
        signal.total_samples
        if edge == mixture.total_samples
        else round(edge * signal.sample_rate / mixture.sample_rate)
        for edge in (samples.start, samples.stop)
    )
    return range(start, max(start + 1, stop))


def take_frames(
    signal: Signal, excerpt: range, settings: FeatureSettings, within: range | None = None
) -> np.ndarray:
    """The frames of an excerpt, as a signal of its own, that are centred in a range of samples.

    Returns
    -------
    np.ndarray, shape (channels, bins, frames)
        For `finished`; without frames where the range has none.
    """
    grid = frame_grid(settings, signal.sample_rate, len(excerpt))
    frames = range(grid.count)
    if within is not None:
        frames = grid.frames_in(within.start - excerpt.start, within.stop - excerpt.start)
    if not frames:
        return np.zeros((1, 1, 0), np.float32)

    def read(start_sample: int, stop_sample: int) -> np.ndarray:
        return signal.read(excerpt.start + start_sample, excerpt.start + stop_sample)

    return part_frames(read, frames, grid, settings)


def pooled_within(signal: Signal, excerpt: range, within: range | None = None) -> np.ndarray:
    """The waveform of an excerpt for its picture, as far as it lies in a range of samples."""
    within = excerpt if within is None else within
    start, stop = max(excerpt.start, within.start), min(excerpt.stop, within.stop)
    samples = signal.read(start, stop) if start < stop else np.zeros((1, 0), np.float32)
    return pooled_waveform(samples, start - excerpt.start, len(excerpt))


def _piece_name(name: str, index: int) -> str:
    return f"{name}/{index:05d}"


def join_features(
    parts: Sequence[PartReceipt],
    stems: Iterable[FileReceipt],
    recording: Recording,
    settings: SplitSettings,
    tree: OutputTree,
) -> tuple[FileReceipt, ...]:
    """The features of a long recording: of what its parts left, and of the files of its stems."""
    wanted, storage = settings.features, tree.storage
    names = {file.stem: file.name for file in stems}
    mixture = stored_mixture(recording, storage)
    with contextlib.ExitStack() as stack:
        signals = {
            name: mixture
            if name == MIXTURE
            else file_signal(stack, tree.path(recording.folder, names[name]), storage)
            for name in wanted.of
        }
        excerpts = excerpts_of(wanted.excerpts, mixture)
        left = [
            stack.enter_context(_left_by(name, tree))
            for receipt in parts
            for _, name in receipt.files
        ]

        def pieces(set_name: str, signal: str, index: int) -> list[Piece]:
            piece = _piece_name(set_name, index)
            if signal == MIXTURE and left:
                return [
                    functools.partial(each.__getitem__, piece) for each in left if piece in each
                ]
            of = signals[signal]
            excerpt = _at_rate_of(of, excerpts[index], mixture)
            made = (
                take_frames(of, excerpt, wanted.sets[set_name], _core_of(receipt.part, of, mixture))
                for receipt in parts
            )
            return [_kept(frames) for frames in made if frames.shape[-1]]

        def waveform(signal: str) -> np.ndarray:
            if signal == MIXTURE and left:
                return joined_waveform([each[WAVEFORM] for each in left])
            of = signals[signal]
            excerpt = _at_rate_of(of, excerpts[0], mixture)
            cores = [_core_of(receipt.part, of, mixture) for receipt in parts]
            return joined_waveform([pooled_within(of, excerpt, core) for core in cores])

        waveforms = {name: waveform(name) for name in wanted.of} if wanted.plots else {}
        return write_features(pieces, signals, excerpts, waveforms, recording, settings, tree)


def _core_of(part: Part, signal: Signal, mixture: Signal) -> range:
    """Which samples of a signal are a part's own."""
    return _at_rate_of(signal, range(part.start_sample, part.stop_sample), mixture)


@contextlib.contextmanager
def _left_by(name: str, tree: OutputTree) -> Iterator[Any]:
    """The pieces that a part has left, by name."""
    with tree.reading(name) as file, np.load(file, allow_pickle=False) as pieces:
        yield pieces


def _kept(frames: np.ndarray) -> Piece:
    """A piece that is needed twice, out of the way in between."""
    file = tempfile.SpooledTemporaryFile(HELD_BYTES)  # noqa: SIM115  (closes with the piece)
    np.save(file, frames, allow_pickle=False)

    def load() -> np.ndarray:
        file.seek(0)
        loaded: np.ndarray = np.load(file, allow_pickle=False)
        return loaded

    return load


def write_features(
    pieces: Callable[[str, str, int], list[Piece]],
    signals: Mapping[str, Signal],
    excerpts: Sequence[range],
    waveforms: Mapping[str, np.ndarray],
    recording: Recording,
    settings: SplitSettings,
    tree: OutputTree,
) -> tuple[FileReceipt, ...]:
    """Finish the features of a recording, and write its file of them, and pictures if asked for.

    Parameters
    ----------
    pieces
        what makes up the frames of a set, by its name, of a signal and of an excerpt, in order
    signals
        by name
    excerpts
        samples of the mixture
    waveforms
        by signal, where they are drawn
    """
    wanted = settings.features
    entries, statistics = [], {}
    for name, parameters in wanted.sets.items():
        for signal in signals:
            sums: BinSums | None = None
            for index in range(len(excerpts)):
                array = f"{name}/{signal}"
                if wanted.excerpts.is_indexed:
                    array = _piece_name(array, index)
                entry, found = _finished_entry(array, pieces(name, signal, index), parameters)
                entries.append(entry)
                sums = found if sums is None or found is None else sums + found
            if sums is not None:
                statistics[f"{name}/{signal}"] = sums.to_plain()
    metadata: dict[str, Any] = {
        "format": FORMAT,
        "element": recording.element,
        "folder": recording.folder,
        "sets": {name: each.model_dump(mode="json") for name, each in wanted.sets.items()},
        "indexed": wanted.excerpts.is_indexed,
        "signals": list(signals),
        "excerpts": [_in_seconds(excerpt, recording) for excerpt in excerpts],
        "statistics": statistics,
    }
    with tree.writing(recording.folder, wanted.file_name) as file:
        write_recording_file(file, entries, metadata, wanted.format)
        receipt = published_file(file, wanted.file_name, branch="features", stem=None)
    by_name = {entry.name: entry for entry in entries}
    pictures = (
        _write_picture(signal, each, by_name, metadata["excerpts"][0], recording, wanted, tree)
        for signal, each in waveforms.items()
    )
    return (receipt, *pictures)


def _write_picture(
    signal: str,
    waveform: np.ndarray,
    entries: Mapping[str, ArrayEntry],
    excerpt: Mapping[str, float],
    recording: Recording,
    wanted: FeatureSetSettings,
    tree: OutputTree,
) -> FileReceipt:
    panels = []
    for name, parameters in wanted.sets.items():
        if is_drawn(parameters):
            entry = entries[f"{name}/{signal}"]
            pooled = pooled_frames(entry.blocks(), entry.shape[0])
            panels.append(FeaturePanel(name, parameters, pooled))
    png = draw_features(waveform, panels, **excerpt)
    name = feature_plot_name(signal)
    tree.write(png, recording.folder, name)
    stem = None if signal == MIXTURE else signal
    return published(png, name, branch="features", stem=stem)


def _in_seconds(excerpt: range, recording: Recording) -> dict[str, float]:
    rate = recording.info.sample_rate
    start_s = (recording.start_sample + excerpt.start) / rate
    return {"start_s": round(start_s, 6), "duration_s": round(len(excerpt) / rate, 6)}


def _finished_entry(
    name: str, pieces: Sequence[Piece], settings: FeatureSettings
) -> tuple[ArrayEntry, BinSums | None]:
    """An array of finished frames, and the sums of its bins if its numbers are real."""
    # Pieces may lie in a bucket: where no level is needed, they are read once only.
    levels = [
        highest_level_db(piece(), settings) for piece in pieces if settings.needs_highest_level
    ]
    highest_db = max((each for each in levels if each is not None), default=None)
    file = tempfile.SpooledTemporaryFile(HELD_BYTES)  # noqa: SIM115  (closes with the entry)
    frames = 0
    for block in finished((piece() for piece in pieces), settings, highest_db):
        rows = frames_first(block, settings)
        file.write(rows.tobytes())
        frames += len(rows)
    row = rows[:1]

    def blocks() -> Iterator[np.ndarray]:
        file.seek(0)
        rows_at_once = max(1, HELD_BYTES // row.nbytes)
        while data := file.read(rows_at_once * row.nbytes):
            yield np.frombuffer(data, row.dtype).reshape(-1, *row.shape[1:])

    entry = ArrayEntry(name, (frames, *row.shape[1:]), row.dtype.name, blocks)
    return entry, None if np.iscomplexobj(row) else BinSums.of_blocks(blocks())


def frames_first(block: np.ndarray, settings: FeatureSettings) -> np.ndarray:
    """Features as they are written, sliced in time, and given to sequence models.

    Parameters
    ----------
    block
        `(channels, bins, frames)`

    Returns
    -------
    np.ndarray, shape (frames, bins), of features of each channel (frames, channels, bins)
    """
    rows = np.ascontiguousarray(block.transpose(2, 0, 1))
    return rows[:, 0] if settings.mono else rows
