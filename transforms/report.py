"""What the page of results shows and plays of a recording: MakeReport, and that of many parts."""

import base64
import contextlib
import dataclasses
import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from ..audio.listening import (
    LEAD_S,
    RANGE_DB,
    ROWS,
    WHOLE_COLUMNS,
    frequency_range,
    highest_level_db,
    levels_within,
    merged_levels,
    merged_peaks,
    opus_of,
    peaks_of,
    picture_of,
    reach_of,
)
from ..storage import OutputTree
from .feature_settings import MIXTURE
from .page_script import REPORT, page_script
from .published_files import (
    CHUNK_S,
    PublishingStep,
    published,
    report_chunk_name,
    report_chunks,
    require_unchanged,
)
from .records import FileReceipt, Recording, SignalLevel, Track
from .settings import SplitSettings
from .stem_files import format_of
from .track_signals import Signal, file_signal, held_mixture, stored_mixture

FORMAT = 1
# Damaged headers tell of hours at a few Hz: that is nothing to hear, and takes long to encode.
LOWEST_RATE = 1000
SILENT = 1e-8  # -160 dB
# What is longer waits on the disk until the whole was seen.
HELD_BYTES = 64 << 20


class MakeReport(PublishingStep):
    """`samples` and `stems` of a whole recording to its files for the page.

    JoinParts makes those of a recording of several parts, of the files of its stems.
    """

    branch = "report"

    def apply(self, record: Track) -> Iterable[Track]:
        """Adds to `files`, where the track is a whole recording."""
        recording = record.recording
        if not record.part.is_whole:
            return [record]
        require_unchanged(recording, self.tree.storage)
        rate = format_of(recording.info, self.settings.stems).sample_rate
        stems = {stem: Signal.held(samples, rate) for stem, samples in record.stems.items()}
        signals = {MIXTURE: held_mixture(record, self.tree.storage), **stems}
        record.add_files(*write_report(signals, recording, self.settings, self.tree))
        return [record]


def report_of_files(
    stems: Iterable[FileReceipt], recording: Recording, settings: SplitSettings, tree: OutputTree
) -> tuple[FileReceipt, ...]:
    """What MakeReport writes, made of the file of a recording and of those of its stems."""
    with contextlib.ExitStack() as stack:
        signals = {MIXTURE: stored_mixture(recording, tree.storage)}
        for file in stems:
            path = tree.path(recording.folder, file.name)
            signals[file.stem or ""] = file_signal(stack, path, tree.storage)
        return write_report(signals, recording, settings, tree)


def write_report(
    signals: Mapping[str, Signal], recording: Recording, settings: SplitSettings, tree: OutputTree
) -> tuple[FileReceipt, ...]:
    """Write a recording's files for the page: its outline, and a chunk for each `CHUNK_S`.

    Parameters
    ----------
    signals
        by name: the mixture, and stems
    """
    chunks = report_chunks(recording.duration_s)
    audio = settings.report.audio and recording.info.sample_rate >= LOWEST_RATE
    with tempfile.SpooledTemporaryFile(HELD_BYTES) as file:
        seen = {name: SeenSignal(signal, file) for name, signal in signals.items()}
        for chunk in range(chunks):
            for each in seen.values():
                each.see(chunk, audio=audio)
        levels = {name: np.concatenate(each.levels, axis=1) for name, each in seen.items()}
        top_db = highest_level_db(levels[MIXTURE])
        contents = (
            {
                "lead_s": LEAD_S if chunk else 0.0,
                "signals": {name: each.told(chunk, top_db) for name, each in seen.items()},
            }
            for chunk in range(chunks)
        )
        receipts = [
            _write(content, report_chunk_name(chunk), recording, tree)
            for chunk, content in enumerate(contents)
        ]
    level_of = {name: each.level(name) for name, each in seen.items()}
    peaks = {
        name: merged_peaks(np.concatenate(each.peaks), WHOLE_COLUMNS) for name, each in seen.items()
    }
    pictures = {name: merged_levels(each, WHOLE_COLUMNS) for name, each in levels.items()}
    outline = {
        "format": FORMAT,
        "folder": recording.folder,
        "duration_s": round(recording.duration_s, 6),
        "sample_rate": recording.info.sample_rate,
        "channels": recording.info.channels,
        "chunk_s": CHUNK_S,
        "chunks": chunks,
        "audio": audio,
        "signals": [*seen],
        "levels": {
            name: {"rms_db": each.rms_db, "peak_db": each.peak_db}
            for name, each in level_of.items()
        },
        "columns": len(peaks[MIXTURE]),
        "peaks": {name: _text(each.tobytes()) for name, each in peaks.items()},
        "spectrogram": {
            "columns": pictures[MIXTURE].shape[1],
            "rows": ROWS,
            "hertz": {name: frequency_range(each.sample_rate) for name, each in signals.items()},
            "top_db": top_db,
            "range_db": RANGE_DB,
        },
        "pictures": {name: _picture(each, top_db) for name, each in pictures.items()},
    }
    receipt = _write(outline, REPORT, recording, tree)
    return (dataclasses.replace(receipt, levels=tuple(level_of.values())), *receipts)


def _write(
    content: dict[str, Any], name: str, recording: Recording, tree: OutputTree
) -> FileReceipt:
    data = page_script(content)
    tree.write(data, recording.folder, name)
    return published(data, name, branch="report", stem=None)


@dataclass
class SeenSignal:
    """What was seen of a signal, chunk after chunk.

    Attributes
    ----------
    signal
        the signal
    held
        file that its encoded chunks wait in, and those of others
    levels
        of the pixels of each chunk's spectrogram, `(rows, columns)`
    peaks
        of each chunk, `(columns, 2)`
    places
        where each chunk begins in `held`, and how long it is
    power
        sum of squares
    highest
        of the absolute values
    """

    signal: Signal
    held: IO[bytes]
    levels: list[np.ndarray] = field(default_factory=list)
    peaks: list[np.ndarray] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    power: float = 0.0
    highest: float = 0.0

    def see(self, chunk: int, *, audio: bool) -> None:
        """See the next chunk."""
        signal = self.signal
        rate, total = signal.sample_rate, signal.total_samples
        start, stop = (min(each * CHUNK_S * rate, total) for each in (chunk, chunk + 1))
        reach = reach_of(rate)
        first, last = max(0, start - reach), min(total, stop + reach)
        around = signal.read(first, last)
        if not np.isfinite(around).all():
            around = np.nan_to_num(around)
        own = around[:, start - first : stop - first]
        self.power += float(np.square(own, dtype=np.float64).sum())
        self.highest = max(self.highest, float(np.abs(own).max(initial=0.0)))
        self.peaks.append(peaks_of(own, rate))
        self.levels.append(levels_within(around, rate, start - first, stop - first))
        if audio:
            data = opus_of(
                lambda start, stop: around[:, start - first : stop - first],
                samples=total,
                sample_rate=rate,
                start_s=start / rate - LEAD_S,
                stop_s=stop / rate + LEAD_S,
            )
            self.places.append((self.held.seek(0, os.SEEK_END), len(data)))
            self.held.write(data)

    def level(self, name: str) -> SignalLevel:
        """The level of what was seen."""
        mean = self.power / max(1, self.signal.total_samples * self.signal.channels)
        return SignalLevel(name, _in_db(math.sqrt(mean)), _in_db(self.highest))

    def told(self, chunk: int, top_db: float) -> dict[str, str]:
        """What the page is told of a chunk."""
        told = {
            "peaks": _text(self.peaks[chunk].tobytes()),
            "picture": _picture(self.levels[chunk], top_db),
        }
        if self.places:
            start, size_bytes = self.places[chunk]
            self.held.seek(start)
            told["audio"] = _text(self.held.read(size_bytes))
        return told


def _in_db(value: float) -> float | None:
    return round(20 * math.log10(value), 2) if value > SILENT else None


def _picture(levels: np.ndarray, top_db: float) -> str:
    return f"data:image/webp;base64,{_text(picture_of(levels, top_db))}"


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
