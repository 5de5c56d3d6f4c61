"""Notes of tries: taken before the work, gone when it has ended, however it ended."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from storage_server import BUCKET, StorageServer

from beamsplitter.storage import OutputTree, UnusableStorageError
from beamsplitter.storage.local_files import LocalFiles
from beamsplitter.transforms import attempts
from beamsplitter.transforms.attempts import CountAttempts, new_attempts
from beamsplitter.transforms.records import PendingRecording
from beamsplitter.transforms.steps import FAILURES


def pending(name: str, generation: str = "1") -> PendingRecording:
    return PendingRecording(
        element=name, uri=name, folder=name, size_bytes=1, generation=generation, todo=("stems",)
    )


@pytest.fixture(autouse=True)
def new_process() -> None:
    """Tests of graphs that end in the middle of their work leave it begun, in this process."""
    attempts._turns.__init__()
    attempts._ended.clear()


@pytest.fixture
def count(tmp_path: Path) -> Iterator[CountAttempts]:
    """A step with notes of its own."""
    step = CountAttempts(OutputTree(str(tmp_path / "out")), new_attempts(), reason="it crashed")
    step.has_dead_letters = True
    yield step
    step.teardown()


def notes(step: CountAttempts) -> list[str]:
    folder = Path(step.tree.path(step.folder))
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def begun(step: CountAttempts, record: PendingRecording) -> Any:
    """A try of which no end is told, as the process is gone; gives what came out."""
    out = next(iter(step.process(record)))
    # Of another process this one would know nothing.
    step.begun = []
    attempts._turns.__init__()
    return out


def worked(step: CountAttempts, record: PendingRecording) -> list[Any]:
    return list(step.process(record))


def is_given_up(out: Any) -> bool:
    return isinstance(out, beam.pvalue.TaggedOutput) and out.tag == FAILURES


def test_a_note_is_there_while_the_work_goes_on(count: CountAttempts) -> None:
    record = pending("a")
    work = iter(count.process(record))
    assert next(work) is record
    assert len(notes(count)) == 1
    assert not [*work] and not notes(count)


def test_two_tries_without_an_end_are_the_last_and_others_are_not_meant(
    count: CountAttempts,
) -> None:
    for _ in range(2):
        assert begun(count, pending("a")) == pending("a")
    for _ in range(2):
        given_up = begun(count, pending("a"))
        assert is_given_up(given_up)
        assert (given_up.value.element, given_up.value.message) == ("a", "it crashed")
    for other in (pending("b"), pending("a", generation="2")):
        assert worked(count, other) == [other]


def test_a_good_end_takes_all_notes_away(count: CountAttempts) -> None:
    for _ in range(5):
        begun(count, pending("a"))
        assert len(notes(count)) == 1
        assert worked(count, pending("a")) == [pending("a")]
        assert not notes(count)


class FailingSteps(beam.DoFn):
    """Steps behind, whose storage is away at first."""

    def __init__(self, folder: Path, failures: int) -> None:
        self.folder = folder
        self.failures = failures

    def process(self, record: PendingRecording) -> Any:
        failed = len([*self.folder.iterdir()])
        if failed < self.failures:
            (self.folder / str(failed)).touch()
            raise UnusableStorageError(None, "is away", record.uri)
        yield record


def test_storage_that_is_away_again_and_again_is_no_crash(tmp_path: Path) -> None:
    folder, tries = new_attempts(), 5
    (tmp_path / "failed").mkdir()

    def run() -> None:
        with beam.Pipeline(runner=FnApiRunner()) as pipeline:
            step = CountAttempts(OutputTree(str(tmp_path / "out")), folder, reason="it crashed")
            counted = pipeline | beam.Create([pending("a")]) | beam.ParDo(step)
            counted | beam.ParDo(FailingSteps(tmp_path / "failed", tries))

    for _ in range(tries):
        with pytest.raises(RuntimeError, match="is away"):
            run()
        assert not [*(tmp_path / "out").rglob("*-[01]")]
    run()


def test_a_note_that_could_not_be_removed_is_no_crash(
    count: CountAttempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(files: LocalFiles, path: str, root: str) -> None:
        raise UnusableStorageError(None, "is away", path)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "remove", away)
        for _ in range(5):
            assert worked(count, pending("a")) == [pending("a")]
        assert len(notes(count)) == 1
    # What ends next takes it along.
    assert worked(count, pending("b")) == [pending("b")]
    assert not notes(count)


def test_in_a_bucket_a_try_takes_two_reads_and_one_write(gcs: StorageServer) -> None:
    step = CountAttempts(OutputTree(f"gs://{BUCKET}/out"), new_attempts(), reason="it crashed")
    step.has_dead_letters = True
    gcs.requests.clear()
    assert worked(step, pending("a")) == [pending("a")]
    of_objects = (request.split() for request in gcs.requests)
    methods = Counter(method for method, path in of_objects if f"/b/{BUCKET}/o" in path)
    assert methods == {"GET": 2, "POST": 1, "DELETE": 1}
    for _ in range(2):
        begun(step, pending("a"))
    assert is_given_up(begun(step, pending("a")))
    assert len(gcs.names("out/.beamsplitter")) == 2


def test_the_notes_are_scratch_files_of_this_run(count: CountAttempts) -> None:
    begun(count, pending("a"))
    assert new_attempts() != count.folder
    count.tree.clear_scratch()
    assert not notes(count)


def beside(count: CountAttempts) -> CountAttempts:
    """The same step in another thread's bundle."""
    return CountAttempts(count.tree, count.folder, reason="it crashed")


def test_what_another_thread_ends_holds_up_nobody(
    count: CountAttempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception ends a bundle; the thread of the next one is the first to be told."""
    monkeypatch.setattr(attempts, "ALONE_TIMEOUT_S", 5)
    begun(count, pending("suspect"))
    threads: list[threading.Thread] = []

    def in_thread(work: Callable[[], Any]) -> None:
        threads.append(threading.Thread(target=work))
        threads[-1].start()

    ready, go_on = threading.Event(), threading.Event()

    def abandon() -> None:
        next(iter(count.process(pending("suspect"))))
        ready.set()
        go_on.wait(5)  # it stays, so that its number is not given to another

    in_thread(abandon)
    assert ready.wait(5)
    count.start_bundle()
    work = beside(count)
    done = threading.Event()
    in_thread(lambda: (list(work.process(pending("next"))), done.set()))
    assert done.wait(2)
    go_on.set()
    for thread in threads:
        thread.join()


def test_a_second_try_has_its_process_to_itself(count: CountAttempts) -> None:
    begun(count, pending("suspect"))
    order: list[str] = []
    suspect_asks = threading.Event()

    def in_thread(record: PendingRecording, when: Callable[[], Any]) -> threading.Thread:
        def work() -> None:
            for _ in beside(count).process(record):
                order.append(f"{record.element} begins")
                when()
                order.append(f"{record.element} ends")

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    first = in_thread(pending("first"), lambda: suspect_asks.wait(60))
    while not order:
        pass
    suspect = in_thread(pending("suspect"), lambda: None)
    while attempts._turns.alone is None:
        pass
    last = in_thread(pending("last"), lambda: None)
    last.join(0.2)
    assert order == ["first begins"]
    suspect_asks.set()
    for thread in (first, suspect, last):
        thread.join(60)
    assert order == [
        f"{name} {what}" for name in ("first", "suspect", "last") for what in ("begins", "ends")
    ]
