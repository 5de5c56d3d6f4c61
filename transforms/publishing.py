"""From stems to a finished recording: EncodeStems, PublishTrack, JoinParts."""

import contextlib
import dataclasses
import errno
import functools
import io
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
from apache_beam.pvalue import TaggedOutput

from ..audio.encoding import StemWriter, quantize
from ..audio.parts import JOIN_BLOCK_SAMPLES, Part, join_parts
from ..audio.pooling import pool_power
from ..audio.progress import Progress, piece_of
from ..audio.stem_format import StemFormat
from ..audio.stored_signal import as_stored, below_full_scale, gain_for, peak_of, scaled
from ..audio.tags import Tags, read_tags, write_tags
from ..storage import OutputTree, Storage, StorageError
from .labels import read_part_labels, write_labels
from .manifest import (
    finished_branches,
    manifest_of,
    merged_files,
    read_manifest,
    write_manifest,
)
from .plots import draw_plots, grids_of_files, write_plots
from .published_files import (
    PublishingStep,
    part_file_name,
    published_file,
    remove_unfinished,
    require_unchanged,
)
from .records import FileReceipt, PartReceipt, PartReference, Receipt, Recording, Track
from .settings import SplitSettings
from .stem_files import format_of, plotted_range, read_plotted, stem_grid
from .whereabouts import tell_share

PARTS = "parts"
StemReader = Callable[[], Iterable[np.ndarray]]


class EncodeStems(PublishingStep):
    """Stems to files: of a whole recording to the published ones, of a part to scratch files."""

    branch = "stems"

    def apply(self, record: Track) -> Iterable[Track]:
        """Adds to `files`, or to `part_files`; `stems` becomes what the files hold."""
        recording, part = record.recording, record.part
        stems = with_sum(record.stems, self.settings)
        if not part.is_whole:
            for stem, samples in stems.items():
                name = part_file_name(recording, part, "stems", stem)
                self.tree.write(np.ascontiguousarray(samples.T).tobytes(), name)
                record.add_part_file("stems", stem, name)
            return [record]
        require_unchanged(recording, self.tree.storage)
        tags = _tags_of(recording, record.binary, self.settings, self.tree.storage)
        record.binary = None
        files = write_stems(
            {stem: functools.partial(_blocks_of, each) for stem, each in stems.items()},
            recording,
            tags,
            self.settings,
            self.tree,
        )
        record.add_files(*files)
        record.stems = stems if self.settings.branches_of_stems & {*recording.todo} else {}
        for file in files if record.stems else ():
            record.stems[file.stem or ""] = self._held_by(file, record)
        return [record]

    def _held_by(self, file: FileReceipt, record: Track) -> np.ndarray:
        """What a published stem holds."""
        recording = record.recording
        stem_format = format_of(recording.info, self.settings.stems)
        if _keeps_samples(stem_format, recording, self.settings):
            return quantize(record.stems[file.stem or ""], stem_format)[0]
        grid = stem_grid(recording, self.settings)
        return read_plotted(file.name, record.part, recording, grid, self.tree)


def with_sum(stems: dict[str, np.ndarray], settings: SplitSettings) -> dict[str, np.ndarray]:
    """The stems to write, of those that a separator gave: with `two_stems` the others are summed.

    Parameters
    ----------
    stems
        float32 `(channels, samples)` by name
    """
    total = settings.stems.sum_of_others
    if total is None or total not in settings.wanted_stems:
        return dict(stems)
    others = [stems[name] for name in settings.separated_stems if name != settings.stems.two_stems]
    # One after the other: a sum of a list of arrays may round by its length.
    summed = others[0].copy()
    for other in others[1:]:
        summed += other
    return {name: stems.get(name, summed) for name in settings.wanted_stems}


def write_stems(
    readers: Mapping[str, StemReader],
    recording: Recording,
    tags: Tags | None,
    settings: SplitSettings,
    tree: OutputTree,
) -> tuple[FileReceipt, ...]:
    """Encode a recording's stems to published files.

    Parameters
    ----------
    readers
        by stem, what gives its blocks, float32 `(channels, samples)`, each time anew
    """
    stem_format = format_of(recording.info, settings.stems)

    def stored(stem: str) -> Iterator[np.ndarray]:
        return as_stored(readers[stem](), recording.info.sample_rate, stem_format)

    # With one gain for all of them they still sum to a mixture.
    gain = 1.0
    if settings.stems.peaks == "rescale":
        gain = gain_for(max(peak_of(stored(stem)) for stem in readers), stem_format)
    receipts = []
    for stem in readers:
        blocks = scaled(stored(stem), gain)
        if settings.stems.peaks == "limit":
            blocks = below_full_scale(blocks, stem_format)
        receipt = write_stem(blocks, stem, stem_format, recording, tags, settings, tree)
        gain_db = round(20 * math.log10(gain), 6) if gain < 1 else None
        receipts.append(dataclasses.replace(receipt, gain_db=gain_db))
    return tuple(receipts)


def write_stem(
    blocks: Iterable[np.ndarray],
    stem: str,
    stem_format: StemFormat,
    recording: Recording,
    tags: Tags | None,
    settings: SplitSettings,
    tree: OutputTree,
) -> FileReceipt:
    """Encode blocks of float32 `(channels, samples)`, as they are stored, to one published stem."""
    info = recording.info
    name = settings.stems.name_of(stem)
    file_name = settings.file_names(recording.folder)[stem] + stem_format.extension
    with tree.writing(recording.folder, file_name) as file:
        with StemWriter(file, stem_format=stem_format) as writer:
            for block in blocks:
                writer.write(block)
        if tags:
            title = tags.title or _printable(os.path.basename(recording.folder))
            stem_tags = dataclasses.replace(tags, title=f"{title} ({name})")
            write_tags(file, stem_tags, container=stem_format.container)
        receipt = published_file(file, file_name, branch="stems", stem=stem)
    rate, channels = stem_format.sample_rate, stem_format.channels
    return dataclasses.replace(
        receipt,
        frames=writer.frames,
        duration_s=writer.frames / rate,
        clipped_samples=writer.clipped,
        sample_rate=rate if rate != info.sample_rate else None,
        channels=channels if channels != info.channels else None,
    )


def _blocks_of(samples: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, samples.shape[1], JOIN_BLOCK_SAMPLES):
        yield samples[:, start : start + JOIN_BLOCK_SAMPLES]


def _keeps_samples(stem_format: StemFormat, recording: Recording, settings: SplitSettings) -> bool:
    """Whether the files hold the stems just as they were made, but for rounding."""
    info = recording.info
    same = (stem_format.sample_rate, stem_format.channels) == (info.sample_rate, info.channels)
    return same and not stem_format.is_lossy and settings.stems.peaks == "clip"


class PublishTrack(PublishingStep):
    """Writes the manifest of a whole recording; of a part, hands on the receipts.

    Gives a `Receipt`, or `PartReceipt`s in the output `parts`. The files of parts that were joined
    go when the manifest is written, not before: whoever does this again finds them, or the
    manifest.
    """

    def apply(self, record: Track) -> Iterable[Any]:
        """One track to one receipt, or one part's track to a receipt for each branch."""
        if record.part.is_whole:
            return [self.publish(record)]
        return [
            TaggedOutput(
                PARTS,
                PartReceipt(
                    recording=record.recording,
                    part=record.part,
                    branch=branch,
                    files=tuple(
                        (stem, name) for owner, stem, name in record.part_files if owner == branch
                    ),
                    work_s=record.work_s,
                ),
            )
            for branch in record.recording.todo
        ]

    def publish(self, track: Track) -> Receipt:
        """Remove what an earlier manifest left over, then write the manifest."""
        recording = track.recording
        if not recording.scratch:
            # No job has planned it: what was to be done is what was.
            todo = tuple(dict.fromkeys(file.branch for file in track.files))
            recording = dataclasses.replace(recording, todo=todo)
        source_sha256 = track.source_sha256 or self.tree.storage.sha256_of(recording.uri)
        # After it was hashed: a digest of other content would make the next run take that as done.
        require_unchanged(recording, self.tree.storage)
        files = merged_files(recording, track.files)
        names = {file.name for file in files}
        for name in recording.stale:
            if name not in names:
                self.tree.remove(recording.folder, name)
        manifest = manifest_of(
            recording,
            files,
            self.settings,
            source_sha256=source_sha256,
            work_s=track.work_s,
        )
        write_manifest(manifest, self.tree, recording.folder)
        for _, _, name in track.part_files:
            self.tree.remove(name)
        self.count("audio_milliseconds", round(1000 * recording.duration_s))
        self.count("bytes", sum(file.size_bytes for file in track.files))
        clipped_samples = sum(file.clipped_samples or 0 for file in track.files)
        self.count("clipped_samples", clipped_samples)
        self.count("recordings")
        self.count("clipped_recordings", clipped_samples > 0)
        return Receipt(
            recording.element,
            recording.folder,
            recording.duration_s,
            files,
            message=recording.message,
        )


class JoinParts(PublishingStep):
    """The receipts of a long recording's parts to its published files, without the manifest.

    The input is what a CoGroupByKey gives: `(key, {"stems": …, "plots": …, "failures": …})`, of one
    generation of a recording. Engines do this again, also when it is done, and also while another
    worker is at it: where the files of parts are gone, the recording is finished.

    A recording of which a part failed is left as it is; its dead letters are out already.

    Parameters
    ----------
    is_stream
        the CoGroupByKey gives what it has at every receipt: wait until all are there
    """

    def __init__(
        self, settings: SplitSettings, tree: OutputTree, *, is_stream: bool = False
    ) -> None:
        super().__init__(settings, tree)
        self.is_stream = is_stream

    def apply(self, record: tuple[bytes, dict[str, list[Any]]]) -> Iterable[Track]:
        """One group of receipts to a track of a whole recording, one for each of its events."""
        receipts = {
            branch: _one_a_part(record[1].get(branch, ())) for branch in self.settings.branches
        }
        incomplete = _incomplete_branches(receipts)
        # A part that failed in one try and came out in another did come out.
        if incomplete and (self.is_stream or record[1]["failures"]):
            return []
        recording = self._recordings(record)[0]
        if incomplete:
            raise StorageError(None, f"{incomplete[0]} of some parts are missing", recording.uri)
        require_unchanged(recording, self.tree.storage)
        begun_s = time.monotonic()
        # Each branch of a part tells the work on all.
        work_before_s = sum(receipt.work_s for receipt in receipts[recording.todo[0]])
        part_files = tuple(
            (branch, stem, name)
            for branch, group in receipts.items()
            for receipt in group
            for stem, name in receipt.files
        )
        try:
            files = self._join(receipts, recording)
        except StorageError as error:
            finished = self._finished_files(recording)
            if error.errno != errno.ENOENT or not finished:
                raise
            files = finished
        whole = Part.whole(recording.total_samples)
        # Each event is answered, also those about one recording.
        messages = dict.fromkeys(each.message for each in self._recordings(record))
        return [
            Track(
                PartReference(dataclasses.replace(recording, message=message), whole),
                files=files,
                part_files=part_files,
                begun_s=begun_s,
                work_before_s=work_before_s,
            )
            for message in messages
        ]

    def _finished_files(self, recording: Recording) -> tuple[FileReceipt, ...]:
        """The files of a recording that is finished by now; none if it is not."""
        found = read_manifest(self.tree, recording.folder)
        if found is None or found.content.input.generation != recording.generation:
            return ()
        of_all = self.settings.digests()
        digests = {branch: of_all[branch] for branch in recording.todo}
        done = finished_branches(found, self.tree, recording.folder, digests)
        if done != set(recording.todo):
            return ()
        return tuple(file for file in found.content.files if file.branch in done)

    def _recordings(self, record: tuple[bytes, dict[str, list[Any]]]) -> list[Recording]:
        """The recording as each receipt has it: they differ in the event that asked for it."""
        groups = (record[1].get(branch, ()) for branch in self.settings.branches)
        return [receipt.recording for group in groups for receipt in group]

    def identify(self, record: tuple[bytes, dict[str, list[Any]]]) -> dict[str, Any]:
        """The recording of the receipts, or of the failures if no part came out."""
        told = [*self._recordings(record), *record[1]["failures"]][0]
        return {"element": told.element, "uri": told.uri}

    def clean_up(self, record: tuple[bytes, dict[str, list[Any]]]) -> None:
        """Remove what was joined already, and is not published."""
        with contextlib.suppress(StorageError):
            remove_unfinished(self._recordings(record)[0], self.settings, self.tree)

    def _join(
        self, receipts: dict[str, list[PartReceipt]], recording: Recording
    ) -> tuple[FileReceipt, ...]:
        files: tuple[FileReceipt, ...] = ()
        pieces = _pieces_of_joining(recording, receipts)
        if "stems" in recording.todo:
            tags = _tags_of(recording, None, self.settings, self.tree.storage)
            readers = {
                stem: functools.partial(
                    self._joined, receipts["stems"], stem, recording, next(pieces)
                )
                for stem, _ in receipts["stems"][0].files
            }
            files += write_stems(readers, recording, tags, self.settings, self.tree)
        if "labels" in recording.todo:
            labels = [
                label
                for receipt in receipts["labels"]
                for _, name in receipt.files
                for label in read_part_labels(name, self.tree)
            ]
            uncertain = self.settings.labels.uncertain
            files += write_labels(labels, recording, self.tree, uncertain)
        if "plots" in recording.todo:
            powers: dict[str, np.ndarray] = {}
            for receipt in receipts["plots"]:
                for name, file_name in receipt.files:
                    power = self._load(file_name)
                    powers[name] = np.maximum(powers[name], power) if name in powers else power
            parts = [receipt.part for receipt in receipts["plots"]]
            for file in files:
                if file.branch != "stems":
                    continue
                powers[file.stem or ""] = self._power_of(file.name, recording, parts, next(pieces))
            plots = draw_plots(
                powers, grids_of_files(powers, recording, self.settings), recording, self.settings
            )
            files += write_plots(plots, recording, self.settings, self.tree)
        stems = [file for file in (*recording.kept, *files) if file.branch == "stems"]
        # SciPy's signals take a second to import.
        if "scores" in recording.todo:
            from .stem_scores import score_files

            files += (score_files(stems, recording, self.settings, self.tree),)
        if "features" in recording.todo:
            from .features import join_features

            left = receipts["features"]
            files += join_features(left, stems, recording, self.settings, self.tree)
        if "report" in recording.todo:
            from .report import report_of_files

            files += report_of_files(stems, recording, self.settings, self.tree)
        return files

    def _power_of(
        self, name: str, recording: Recording, parts: list[Part], progress: Progress
    ) -> np.ndarray:
        """The powers of the pixels of a joined stem, read part by part."""
        grid = stem_grid(recording, self.settings)
        power = np.zeros((0, 0), np.float32)
        for part in parts:
            samples = read_plotted(name, part, recording, grid, self.tree)
            wanted = plotted_range(part, recording, grid)
            part_power = pool_power(
                samples, grid, start_sample=wanted.start_sample, core=wanted.core
            )
            power = np.maximum(power, part_power) if power.size else part_power
            progress(part.stop_sample / recording.total_samples)
        return power

    def _joined(
        self, receipts: list[PartReceipt], stem: str, recording: Recording, progress: Progress
    ) -> Iterator[np.ndarray]:
        """The blocks of a stem, joined."""
        with self._part_reader(receipts, stem, recording) as read:
            blocks = join_parts([receipt.part for receipt in receipts], read)
            yield from _telling(blocks, recording.total_samples, progress)

    def _load(self, name: str) -> np.ndarray:
        with self.tree.reading(name) as file:
            return np.load(file, allow_pickle=False)

    @contextlib.contextmanager
    def _part_reader(
        self, receipts: list[PartReceipt], stem: str, recording: Recording
    ) -> Iterator[Any]:
        frame_bytes = 4 * recording.info.channels
        with contextlib.ExitStack() as stack:
            opened: dict[int, BinaryIO] = {}

            def read(part: Part, start_sample: int, stop_sample: int) -> np.ndarray:
                if part.index not in opened:
                    name = dict(receipts[part.index].files)[stem]
                    opened[part.index] = stack.enter_context(self.tree.reading(name))
                file = opened[part.index]
                file.seek((start_sample - part.stem_start_sample) * frame_bytes)
                data = file.read((stop_sample - start_sample) * frame_bytes)
                return np.frombuffer(data, "<f4").reshape(-1, recording.info.channels).T

            yield read


def _pieces_of_joining(
    recording: Recording, receipts: dict[str, list[PartReceipt]]
) -> Iterator[Progress]:
    """What tells the progress of the long pieces of joining: to write stems, and to plot each."""
    stems = len(receipts["stems"][0].files) if "stems" in recording.todo else 0
    pieces = 2 * stems if "plots" in recording.todo else stems
    return (piece_of(tell_share, each / pieces, (each + 1) / pieces) for each in range(pieces))


def _telling(
    blocks: Iterable[np.ndarray], total_samples: int, progress: Progress
) -> Iterator[np.ndarray]:
    """The blocks; tells how many of the samples were taken and worked on."""
    done = 0
    for block in blocks:
        yield block
        done += block.shape[-1]
        progress(done / total_samples)


def _one_a_part(receipts: Iterable[PartReceipt]) -> list[PartReceipt]:
    """One receipt a part, in order: an event that comes twice gives two that are the same."""
    by_index = {receipt.part.index: receipt for receipt in receipts}
    return [by_index[index] for index in sorted(by_index)]


def _incomplete_branches(receipts: dict[str, list[PartReceipt]]) -> list[str]:
    """The branches to be done that lack receipts of parts; all branches if there are none at all.

    The receipts are one a part.
    """
    recordings = [receipt.recording for group in receipts.values() for receipt in group]
    return [
        branch
        for branch in (recordings[0].todo if recordings else receipts)
        if not receipts[branch] or len(receipts[branch]) < receipts[branch][0].part.count
    ]


def _printable(name: str) -> str:
    """A file name without the bytes that are no UTF-8, which tags can't hold."""
    return os.fsencode(name).decode("utf-8", "replace")


def _tags_of(
    recording: Recording, binary: bytes | None, settings: SplitSettings, storage: Storage
) -> Tags | None:
    if not settings.stems.tags:
        return None
    if binary is not None:
        return read_tags(io.BytesIO(binary))
    with storage.reading(recording.uri) as file:
        return read_tags(file)
