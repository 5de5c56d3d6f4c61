"""What every step of the graph shares: counting, timing, and failures that cost one recording."""

import logging
import time
import traceback
from collections.abc import Iterable, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.pvalue import TaggedOutput

from ..audio.errors import AudioError
from ..errors import BeamsplitterError
from ..storage import UnusableStorageError
from .records import Failure, PartReceipt, PartReference, PendingRecording, Track
from .whereabouts import at_step

FAILURES = "failures"
logger = logging.getLogger("beamsplitter")


class GivenUpError(AudioError):
    """A recording that ended its worker process when it was tried before: in a step, if known."""

    def __init__(self, message: str, step: str | None) -> None:
        super().__init__(message)
        self.step = step


class Step(beam.DoFn):
    """One step: `apply` does the work.

    In a pipeline of one's own, `beam.ParDo(step)`, it raises what goes wrong, as Beam's steps do:
    `beam.ParDo(step).with_exception_handling()` takes that for an output of its own. It leaves the
    record that it is given as it is, so that several steps may take the same.

    In the graph of a job (`run_step`) an exception becomes a dead letter. All exceptions are taken,
    not just those of bad input: whatever one recording sets off, the rest of the batch goes on.
    What is no error of the input carries its traceback. But storage that can't be used fails the
    bundle, which the runner repeats, or ends the job.
    """

    branch: str | None = None
    """The step is for tracks that still need this branch; others pass."""
    main_tag: str | None = None
    """The tag of the output that goes on, where it has one."""
    has_dead_letters = False
    """What goes wrong goes to the output `FAILURES`."""
    owns_tracks = False
    """No other step has the tracks that this one is given: it changes them, and lets arrays go."""

    def apply(self, record: Any) -> Iterable[Any]:
        """The work on one record: gives the records that go on."""
        raise NotImplementedError

    def clean_up(self, record: Any) -> None:
        """Remove what a record on which `apply` failed has left; may raise UnusableStorageError."""

    def process(self, record: Any) -> Iterable[Any]:
        """Beam's entry: `apply`, counted and timed, with failures in their own output."""
        name = type(self).__name__
        if self.branch and self.branch not in record.recording.todo:
            yield self._tagged(record)
            return
        self.count("in")
        started = time.perf_counter_ns()
        if isinstance(record, Track) and not self.owns_tracks:
            record = record.copy()
        try:
            with at_step(name, self.identify(record)["element"], record):
                outputs = list(self.apply(record))
        except UnusableStorageError:
            raise
        # A separator of one's own may call `sys.exit`.
        except (Exception, SystemExit) as error:
            if not self.has_dead_letters:
                raise
            yield from self.fail(record, failure_of(error, name, self.identify(record)))
            return
        elapsed_ms = (time.perf_counter_ns() - started) // 1_000_000
        Metrics.distribution(name, "milliseconds").update(elapsed_ms)
        self.count("out", len(outputs))
        yield from outputs

    def fail(self, record: Any, failure: Failure) -> Iterable[Any]:
        """Count a failure, and put it into its own output."""
        self.count("failures")
        logger.warning("%s: %s: %s", failure.element, failure.step, failure.message)
        self.clean_up(record)
        yield TaggedOutput(FAILURES, failure)

    def count(self, name: str, value: int = 1) -> None:
        """Add to one of the step's counters."""
        Metrics.counter(type(self).__name__, name).inc(value)

    def identify(self, record: Any) -> dict[str, Any]:
        """`element` and what else a dead letter says of a record."""
        return identity_of(record)

    def _tagged(self, record: Any) -> Any:
        return TaggedOutput(self.main_tag, record) if self.main_tag else record


def failure_of(error: BaseException, step: str, identity: dict[str, Any]) -> Failure:
    """The dead letter of a record that an exception ended; bad input needs no traceback."""
    if isinstance(error, GivenUpError) and error.step:
        step = error.step
    expected = isinstance(error, BeamsplitterError)
    trace = "".join(traceback.format_exception(error))
    return Failure(
        **identity,
        step=step,
        exception=type(error).__name__,
        message=str(error) or type(error).__name__,
        traceback=None if expected else trace,
    )


def identity_of(record: Any) -> dict[str, Any]:
    """The fields of a dead letter that say which recording, and which part, a record is of."""
    if isinstance(record, Track):
        record = record.reference
    identity: dict[str, Any] = {}
    if isinstance(record, PartReceipt | PartReference):
        if not record.part.is_whole:
            identity = {"part_index": record.part.index, "generation": record.recording.generation}
        record = record.recording
    if isinstance(record, PendingRecording):
        return {**identity, "element": record.element, "uri": record.uri}
    return {"element": str(record)}


def run_step(
    collection: beam.PCollection,
    step: Step,
    output_type: type,
    failures: list[beam.PCollection],
    *,
    label: str | None = None,
    tags: Iterable[str] = (),
    hints: Mapping[str, str] | None = None,
    owns_tracks: bool = True,
) -> Any:
    """Apply a step, and put the PCollection of its failures into the list.

    Parameters
    ----------
    owns_tracks
        the step alone takes the tracks of this collection
    hints
        resource hints of the step

    Returns the PCollection of its output, or, with `tags`, an object with one attribute a tag.
    """
    tags = tuple(tags)
    step.has_dead_letters, step.owns_tracks = True, owns_tracks
    main = None if step.main_tag else "main"
    outputs = collection | (label or type(step).__name__) >> beam.ParDo(step).with_outputs(
        FAILURES, *tags, **({"main": main} if main else {})
    ).with_resource_hints(**(hints or {}))
    # Beam does not carry type hints to tagged outputs; without them it would pickle the arrays.
    outputs[FAILURES].element_type = Failure
    for tag in (*tags, *([main] if main else [])):
        outputs[tag].element_type = output_type
    failures.append(outputs[FAILURES])
    return outputs if tags else outputs[main]
