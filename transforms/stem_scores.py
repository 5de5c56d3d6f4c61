"""Scores of a recording's stems against true ones, in the pass that makes them: ScoreStems."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import apache_beam as beam

from ..audio.decoding.audio_reader import AudioInfo, probe
from ..models.datasets.stem_folders import StemFile
from ..models.evaluation.results import result_files
from ..models.evaluation.rows import TrackRecord
from ..models.evaluation.scoring import TrackScores
from ..models.evaluation.tables import record_of
from ..storage import OutputTree, Storage
from .plain import to_plain
from .published_files import SCORES_JSON, PublishingStep, published
from .records import FileReceipt, Recording, Track, there
from .scored_signals import Excerpt, FileSignal, Form, HeldSignal, Signal, summed
from .settings import SplitSettings
from .stem_files import format_of
from .track_files import TrackFiles
from .true_stems import TrueStems, find_true_stems

FORMAT = 1


class ScoreStems(PublishingStep):
    """`stems` of a whole recording to their scores; those of parts are scored by JoinParts.

    Raises
    ------
    DatasetError
        the true stems are not there, or of another recording
    """

    branch = "scores"

    def apply(self, record: Track) -> Iterable[Track]:
        """Adds to `files`."""
        recording = record.recording
        if not record.part.is_whole:
            return [record]
        # What the files hold.
        rate = format_of(recording.info, self.settings.stems).sample_rate
        stems = {stem: HeldSignal(samples, rate) for stem, samples in record.stems.items()}
        mixture = HeldSignal(there(record.samples, "samples"), recording.info.sample_rate)
        record.add_files(score_stems(stems, mixture, recording, self.settings, self.tree))
        return [record]


def score_files(
    stems: Iterable[FileReceipt], recording: Recording, settings: SplitSettings, tree: OutputTree
) -> FileReceipt:
    """Score the published stems of a recording, read block by block: see `score_stems`."""
    paths = {file.stem or "": tree.path(recording.folder, file.name) for file in stems}
    of_mixture = StemFile(recording.uri, recording.info.stream)
    opened = _opened([of_mixture, *map(StemFile, paths.values())], tree.storage)
    mixture = Excerpt(opened[of_mixture], recording.start_sample, recording.total_samples)
    signals = {stem: opened[StemFile(path)] for stem, path in paths.items()}
    return score_stems(signals, mixture, recording, settings, tree)


def score_stems(
    stems: Mapping[str, Signal],
    mixture: Signal,
    recording: Recording,
    settings: SplitSettings,
    tree: OutputTree,
) -> FileReceipt:
    """Score the stems of a recording that have a reference, and write what came of it.

    Parameters
    ----------
    stems
        what their files hold, by name
    mixture
        the range of the recording that they are of
    """
    storage = tree.storage
    found = find_true_stems(recording.uri, recording.folder, settings, storage)
    scores = _scores_of(stems, mixture, found, recording, settings, storage)
    record = record_of(settings.separation.title, recording.folder, scores)
    content = {"format": FORMAT, "record": to_plain(record), "scores": scores.to_plain()}
    data = json.dumps(content, indent=1, allow_nan=False).encode()
    tree.write(data, recording.folder, SCORES_JSON)
    receipt = published(
        data, SCORES_JSON, branch="scores", stem=None, duration_s=recording.duration_s
    )
    return replace(receipt, scores=record.rows, references=found.digest(storage))


def _scores_of(
    stems: Mapping[str, Signal],
    mixture: Signal,
    found: TrueStems,
    recording: Recording,
    settings: SplitSettings,
    storage: Storage,
) -> TrackScores:
    opened = _opened(found.files, storage)
    whole = Form.of([*opened.values()])
    whole.require(recording.info, recording.element)
    references = {file: _same_range(signal, recording) for file, signal in opened.items()}
    form = Form.of([*references.values()])
    estimates = {found.names[stem]: each for stem, each in stems.items() if stem in found.names}
    return form.score(
        {
            name: summed([form.reader(references[file]) for file in reference.files])
            for name, reference in found.references.items()
        },
        {name: form.reader(each) for name, each in estimates.items()},
        form.reader(mixture),
        settings.scores.scoring,
    )


def _same_range(reference: Signal, recording: Recording) -> Excerpt:
    """What of a reference is of the range that the job asks for."""
    ratio = reference.sample_rate / recording.info.sample_rate
    start, stop = (
        round(sample * ratio)
        for sample in (
            recording.start_sample,
            recording.start_sample + recording.total_samples,
        )
    )
    if recording.total_samples == recording.info.frames:
        stop = reference.frames
    return Excerpt(reference, start, stop - start)


def _opened(files: Sequence[StemFile], storage: Storage) -> dict[StemFile, FileSignal]:
    track_files = TrackFiles(storage)
    return {file: FileSignal(track_files, each) for file, each in track_files.opened(files).items()}


def require_true_stems(recording: Recording, settings: SplitSettings, storage: Storage) -> None:
    """Refuse references that are not there, or of another recording, before it is separated.

    Raises
    ------
    DatasetError
        they are not there, have another length, or channels that do not fit
    StorageError
        they can't be read
    AudioError
        one can't be decoded
    """
    found = find_true_stems(recording.uri, recording.folder, settings, storage)
    form = Form.of([_probed(file, storage) for file in found.files])
    form.require(recording.info, recording.element)


def _probed(file: StemFile, storage: Storage) -> AudioInfo:
    with storage.reading(file.path) as opened:
        return probe(opened, name=file.path, stream=file.stream)


@dataclass
class WriteScoreTables(beam.PTransform):
    """Receipts of all recordings to tables of their scores, beside `run.json`."""

    settings: SplitSettings
    tree: OutputTree

    def expand(self, receipts: beam.PCollection) -> beam.PCollection:
        """Receipts to nothing that is of use."""
        system, settings, tree = self.settings.separation.title, self.settings, self.tree
        return (
            receipts
            | "ScoresIn"
            >> beam.FlatMap(
                lambda receipt: scores_in(receipt.files, receipt.folder, system)
            ).with_output_types(TrackRecord)
            | "Together" >> beam.WithKeys(0).with_output_types(tuple[int, TrackRecord])
            | "AllScores" >> beam.GroupByKey()
            | "WriteTables"
            >> beam.MapTuple(lambda _, records: write_tables(list(records), settings, tree))
        )


def scores_in(files: Iterable[FileReceipt], folder: str, system: str) -> Iterator[TrackRecord]:
    """The scores of a finished recording, if it has some."""
    for file in files:
        if file.branch == "scores":
            yield TrackRecord(system, folder, file.scores)


def write_tables_of(
    results: Iterable[tuple[str, Iterable[FileReceipt]]], settings: SplitSettings, tree: OutputTree
) -> None:
    """Write the tables of recordings by their folders and files, where no graph does so."""
    system = settings.separation.title
    records = [record for folder, files in results for record in scores_in(files, folder, system)]
    write_tables(records, settings, tree)


def write_tables(records: Sequence[TrackRecord], settings: SplitSettings, tree: OutputTree) -> None:
    """Write the tables of all scores, and pictures of them; nothing where there are none."""
    for name, content in result_files(records, settings.scores.scoring) if records else ():
        # Not in a folder: that might be a recording's.
        tree.write(content, name.replace("plots/", "scores-"))
