"""What a launcher is told of what moves through the graph. No Beam: launchers tell it, too."""

import os
from typing import Any

from ..models.datasets.shards import ShardRecord
from ..models.evaluation.rows import TrackRecord
from .klio.message import parse_message
from .plain import to_plain
from .records import Failure, PartReceipt, PartReference, PendingRecording, Receipt


def progress_of(element: Any) -> dict[str, Any]:
    """What a line of progress says of an element."""
    if isinstance(element, Failure):
        return to_plain(element)
    if isinstance(element, PendingRecording):
        return {"element": element.element}
    if isinstance(element, bytes):
        return {"element": os.fsdecode(parse_message(element).data.element)}
    if isinstance(element, Receipt):
        return {
            "element": element.element,
            "duration_s": element.duration_s,
            "skipped": element.skipped,
            "clipped_samples": sum(file.clipped_samples or 0 for file in element.files),
            "folder": element.folder,
            "files": [[file.branch, file.stem, file.name] for file in element.files],
        }
    if isinstance(element, PartReference | PartReceipt):
        part, info = element.part, element.recording.info
        seconds = (part.stop_sample - part.start_sample) / info.sample_rate
        return {
            "element": element.recording.element,
            "duration_s": seconds,
            "part_index": part.index,
            "part_count": part.count,
            **({"stream": info.streams[info.stream]} if info.streams else {}),
        }
    if isinstance(element, ShardRecord):
        return {"element": element.name, "excerpts": len(element.starts)}
    if isinstance(element, TrackRecord):
        return {"element": f"{element.system}/{element.name}"}
    raise TypeError(f"no progress of {type(element).__name__}")
