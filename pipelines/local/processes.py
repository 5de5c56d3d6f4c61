"""Work on many items in processes, of which one that crashes costs its item and no other."""

import contextlib
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    imports: Sequence[str] = (),
) -> Iterator[tuple[Item, Result | None]]:
    """Do work on items, each in a process apart from this one; results come as they are there.

    An item that takes its process down is tried once more, alone, after the others. Where this
    ends early, so do the processes.

    Parameters
    ----------
    work
        is pickled, as are items and results; what it raises is raised here
    workers
        processes
    imports
        modules that it needs: imported once, for all processes

    Yields
    ------
    Each item with its result; None if it took its process down both times
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", *imports])
    crashed = []
    for item, result in _done(context, work, items, workers):
        if result is None:
            crashed.append(item)
        else:
            yield item, result
    for item in crashed:
        yield from _done(context, work, [item], 1)


def _done(
    context: ForkServerContext,
    work: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
) -> Iterator[tuple[Item, Result | None]]:
    """Items with their results, None if the process crashed."""
    waiting = deque(items)
    processes: dict[Connection, Any] = {}
    idle: list[Connection] = []
    working: dict[Any, Item] = {}
    try:
        while waiting or working:
            while waiting and len(working) < workers:
                if not idle:
                    ours, theirs = context.Pipe()
                    process = context.Process(target=_work, args=(work, theirs), daemon=True)
                    process.start()
                    theirs.close()
                    processes[ours] = process
                    idle.append(ours)
                connection, item = idle.pop(), waiting.popleft()
                working[connection] = item
                with contextlib.suppress(BrokenPipeError):  # it is gone, as is told below
                    connection.send(item)
            answered: Any
            for answered in wait([*working]):
                item = working.pop(answered)
                try:
                    result, error = answered.recv()
                except (EOFError, ConnectionResetError):
                    yield item, None
                    continue
                if error:
                    raise error
                idle.append(answered)
                yield item, result
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.join()


def _work(work: Callable[[Any], Any], connection: Connection) -> None:
    """Work on what comes, until the launcher ends this process, or is gone itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            item = connection.recv()
            try:
                result, failure = work(item), None
            except Exception as error:
                result, failure = None, error
            connection.send((result, failure))
