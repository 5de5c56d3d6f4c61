"""One recording to one file of any name: `beamsplitter separate song.wav -o voice.wav`."""

import contextlib
import glob
import os
import tempfile
from collections.abc import Callable, Iterator

from ...audio.extensions import has_audio_extension
from ...audio.stem_format import CONTAINERS
from ...storage import absolute, scheme_of
from ..events.elements import list_events
from ..events.listing import InputError
from ..job.job_config import JobConfig, JobFileError
from ..job.locations import expanded


def is_one_file(output: str) -> bool:
    """Whether an output names a sound file rather than a folder.

    Raises
    ------
    JobFileError
        it lies where none can
    """
    if not has_audio_extension(output):
        return False
    try:
        return not os.path.isdir(expanded(output))
    except ValueError as error:
        raise JobFileError(f"--output: {error}") from error


def format_of(output: str, wanted: str | None) -> str:
    """The format of stems that a file's extension stands for.

    Parameters
    ----------
    wanted
        the format that was asked for, if one was

    Raises
    ------
    JobFileError
        none, or another one than was asked for
    """
    name = os.path.splitext(output)[1].lower().removeprefix(".")
    if name not in CONTAINERS:
        raise JobFileError(
            f"--output {output}: stems can't be written as {name}: use {', '.join(CONTAINERS)}, or "
            "name a folder"
        )
    if wanted not in (None, name):
        raise JobFileError(f"--output {output} and --format {wanted}: they differ: leave one out")
    return name


def write_one_file(
    job_into: Callable[[str], JobConfig],
    output: str,
    run: Callable[..., int],
    *,
    replace: bool,
) -> int:
    """Run a job of one recording and one stem, and leave the stem in a file; gives the exit code.

    Parameters
    ----------
    job_into
        the job that writes its results into a folder
    output
        the file
    run
        runs a job; told the `shown_location`, gives the exit code
    replace
        take the place of a file that is there

    Raises
    ------
    JobFileError
        there is a file already, or the job gives several stems
    InputError
        there are several recordings
    """
    path = absolute(expanded(output))
    if scheme_of(path):
        raise JobFileError(f"--output {output}: one file is written on this machine: name a folder")
    if os.path.lexists(path) and not replace:
        raise JobFileError(f"--output {output}: is there already: give --replace, or another name")
    with _folder_beside(path) as folder:
        job = job_into(folder)
        job.resolve()
        stems = job.settings.wanted_stems
        if len(stems) != 1:
            raise JobFileError(
                f"--output {output}: is one file, and there are {len(stems)} stems, "
                f"{', '.join(stems)}: choose one by --stems, or name a folder"
            )
        elements = list_events(job)
        if len(elements) > 1:
            raise InputError(
                f"--output {output}: is one file, and there are {len(elements)} recordings: name a "
                "folder"
            )
        code = run(job, shown_location=path)
        for made in glob.glob(f"{glob.escape(folder)}/**/*.{job.stems.format}", recursive=True):
            os.replace(made, path)
    return code


@contextlib.contextmanager
def _folder_beside(path: str) -> Iterator[str]:
    """A folder on the same disk, which goes afterwards."""
    parent = os.path.dirname(path)
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".beamsplitter-", dir=parent) as folder:
        yield folder
