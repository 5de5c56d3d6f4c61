"""Work on many items in processes, of which one that crashes costs its item and no other."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

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
    Each item with its result; None if it took its process down, and did so again when it was alone
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", *imports])
    waiting = deque(items)
    while waiting:
        suspects: list[Item] = []
        with ProcessPoolExecutor(workers, context, _begin) as pool:
            running: dict[Future[Result], Item] = {}
            while running or (waiting and not suspects):
                # No more than there are processes: these were at it when one of them crashed.
                while waiting and not suspects and len(running) < workers:
                    try:
                        running[pool.submit(work, waiting[0])] = waiting[0]
                    except BrokenProcessPool:
                        break
                    waiting.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    item = running.pop(future)
                    try:
                        yield item, future.result()
                    except BrokenProcessPool:
                        suspects.append(item)
        for item in suspects:
            with ProcessPoolExecutor(1, context, _begin) as pool:
                try:
                    yield item, pool.submit(work, item).result()
                except BrokenProcessPool:
                    yield item, None


def _begin() -> None:
    """In a worker: interrupts are the launcher's to handle, and without it there is no work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_launcher, daemon=True).start()


def _end_with_launcher() -> None:
    launcher = multiprocessing.parent_process()
    if launcher:
        launcher.join()
    os._exit(1)
