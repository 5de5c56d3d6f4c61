"""The parts that a recording is done in, as its header tells. No Beam: `--dry-run` plans, too."""

import hashlib
import json

from ..audio.decoding.audio_reader import probe
from ..audio.errors import TooShortAudioError
from ..audio.parts import excerpt_range
from ..models.separators.mixing import plan_parts_for
from ..storage import Storage, scratch_names
from .records import PartReference, PendingRecording, Recording
from .settings import SeparationSettings, SplitSettings
from .stem_files import format_of


def part_references(
    pending: PendingRecording, settings: SplitSettings, storage: Storage
) -> list[PartReference]:
    """The parts of a pending recording.

    Raises
    ------
    AudioError, DatasetError
        see `planned_recording`
    """
    recording = planned_recording(pending, settings, storage)
    separation = settings.separation
    parts = plan_parts_for(
        separation.description,
        recording.total_samples,
        recording.info.sample_rate,
        recording.info.channels,
        part_seconds=separation.part_seconds,
    )
    return [PartReference(recording, part) for part in parts]


def planned_recording(
    pending: PendingRecording, settings: SplitSettings, storage: Storage
) -> Recording:
    """The recording of a pending one: reads its header.

    Raises
    ------
    AudioError
        it can't be decoded, is empty, or too short
    DatasetError
        it is to be scored, and there are no true stems that fit
    """
    with storage.reading(pending.uri) as file:
        info = probe(file, name=pending.element)
    separation = settings.separation
    start_sample, total_samples = excerpt_range(
        info.frames, info.sample_rate, separation.start_s, separation.duration_s
    )
    # Found out now rather than after the separation.
    format_of(info, settings.stems)
    require_duration(total_samples / info.sample_rate, separation)
    fields = {name: getattr(pending, name) for name in pending.__dataclass_fields__}
    recording = Recording(
        **fields,
        info=info,
        start_sample=start_sample,
        total_samples=total_samples,
        scratch=part_folder(pending),
    )
    if "scores" in recording.todo:
        # With it comes Beam, which takes a second to import.
        from .stem_scores import require_true_stems

        require_true_stems(recording, settings, storage)
    return recording


def require_duration(duration_s: float, separation: SeparationSettings) -> None:
    """Refuse what is too short for the separator.

    Raises
    ------
    TooShortAudioError
        it is
    """
    minimum_s = separation.description.minimum_s
    if duration_s < minimum_s:
        raise TooShortAudioError(
            f"{duration_s:.3f} s is too short for {separation.name}, which needs {minimum_s:g} s: "
            "leave the file out"
        )


def part_folder(recording: PendingRecording) -> str:
    """Where the parts of a long recording leave their files until all are joined.

    Two generations of a file never meet there.
    """
    identity = json.dumps([recording.folder, recording.generation]).encode()
    return "/".join((*scratch_names(), "parts", hashlib.sha256(identity).hexdigest()[:32]))
