"""Decorators that try user code again, or give it up after a time.

They go below `handle_klio`, which drops the message when their exception reaches it:

    class Fetch(beam.DoFn):
        @handle_klio
        @retry(tries=3, delay=1.0, exception=(ConnectionError, KlioTimeoutError))
        @timeout(30)
        def process(self, item):
            yield fetch(item.element)

Both run a generator to its end before anything that it yields goes on. So all that it yields for
one message is in memory at once, and it has to come to an end.

Counters are in the namespace of the class or function, as with `handle_klio`.
"""

import concurrent.futures
import contextvars
import functools
import inspect
import logging
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import tenacity
from apache_beam.metrics import Metrics
from apache_beam.runners.worker import statesampler

logger = logging.getLogger("klio")
FOREVER = -1

ExceptionTypes = type[BaseException] | tuple[type[BaseException], ...]


class KlioRetriesExhausted(Exception):
    """Every try failed; the cause is the last failure."""


class KlioTimeoutError(Exception):
    """User code took longer than it may."""


def retry(
    tries: int = FOREVER,
    delay: float = 0,
    exception: ExceptionTypes = Exception,
    raise_exception: type[BaseException] = KlioRetriesExhausted,
    exception_message: str | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Calls a function or method again when it fails.

    A generator gives only what a successful try has yielded, all of it. Counts
    `kmsg-retry-attempt` before each new try and `kmsg-drop-retry-error` when there is none left.

    Parameters
    ----------
    tries
        how often it is called at most; -1 for no limit.
    delay
        seconds between two tries; only the calling thread waits.
    exception
        the exception, or a tuple of them, that a new try may help against. Others are
        raised at once.
    raise_exception
        raised when no try is left, with the last failure as its cause.
    exception_message
        its text; by default it tells the last failure.

    Raises
    ------
    TypeError
        used without parentheses.
    ValueError
        `tries` is neither -1 nor at least 1, or `delay` is negative.
    """
    if callable(tries):
        raise TypeError("Write @retry() with parentheses.")
    if tries != FOREVER and tries < 1:
        raise ValueError(f"tries is at least 1, or -1 for no limit, not {tries}.")
    if delay < 0:
        raise ValueError(f"delay is at least 0 seconds, not {delay}.")

    def retrying_of(function: Callable[..., Any], namespace: str) -> tenacity.Retrying:
        # Made for each call: it holds state of its thread, and can't be pickled.
        def warn(state: tenacity.RetryCallState) -> None:
            Metrics.counter(namespace, "kmsg-retry-attempt").inc()
            logger.warning(
                "%s failed in try %d%s; trying again in %g s: %s",
                function.__qualname__,
                state.attempt_number,
                "" if tries == FOREVER else f" of {tries}",
                delay,
                _describe(_failure_of(state)),
            )

        return tenacity.Retrying(
            stop=tenacity.stop_never if tries == FOREVER else tenacity.stop_after_attempt(tries),
            wait=tenacity.wait_fixed(delay),
            retry=tenacity.retry_if_exception_type(exception),
            before_sleep=warn,
            retry_error_callback=_raise_exhausted,
        )

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            call = functools.partial(function, *args, **kwargs)
            namespace = _namespace(function, args)
            try:
                return _replayed(retrying_of(function, namespace)(_run_to_its_end, call))
            except _ExhaustedError as exhausted:
                Metrics.counter(namespace, "kmsg-drop-retry-error").inc()
                message = f"{function.__qualname__} failed {tries} times, at last with {exhausted}"
                raise raise_exception(exception_message or message) from exhausted.__cause__

        return wrapper

    return decorate


class _ExhaustedError(Exception):
    """Not tenacity's RetryError, which the function may itself raise."""


def _raise_exhausted(state: tenacity.RetryCallState) -> None:
    error = _failure_of(state)
    raise _ExhaustedError(_describe(error)) from error


def _failure_of(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _describe(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}"


def timeout(
    seconds: float,
    exception: type[BaseException] = KlioTimeoutError,
    exception_message: str | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Gives up waiting for a function or method after a time, and counts `kmsg-drop-timed-out`.

    The time is that of the whole generator, where it is one, without the steps further down.

    The code runs in a thread of its own, so it needs no pickling, sees the same objects, such as a
    loaded model, and its metrics count. But Python can't end a thread: code that was given up runs
    on in the background until it returns, or a generator until its next yield. It holds its memory
    and processor until then, no longer counts for a thread limit or in metrics, and what it gives
    is thrown away. It does not keep the worker process from ending. Code that can hang for good
    needs a time limit of its own, such as that of `subprocess.run`.

    Parameters
    ----------
    seconds
        how long it may take.
    exception
        raised when the time is over.
    exception_message
        its text; by default it names the function and the time.

    Raises
    ------
    TypeError
        used without parentheses.
    ValueError
        `seconds` is not above 0.
    """
    if callable(seconds):
        raise TypeError("Write @timeout(seconds) with parentheses.")
    if not seconds > 0:
        raise ValueError(f"seconds is above 0, not {seconds}.")

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            call = _BackgroundCall(functools.partial(function, *args, **kwargs))
            try:
                return _replayed(call.result(seconds))
            except _StillRunningError:
                Metrics.counter(_namespace(function, args), "kmsg-drop-timed-out").inc()
                message = f"{function.__qualname__} took longer than {seconds:g} s."
                raise exception(exception_message or message) from None

        return wrapper

    return decorate


class _StillRunningError(Exception):
    pass


class _BackgroundCall:
    """A call in a daemon thread: a fork of a worker with threads could deadlock."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._given_up = threading.Event()
        self._tracker = _Tracker(statesampler.get_current_tracker())

    def result(self, seconds: float) -> Any:
        """What the call returns or raises, or _StillRunningError after `seconds`."""
        run = functools.partial(contextvars.copy_context().run, self._run)
        threading.Thread(target=run, name="klio-timeout", daemon=True).start()
        # Not `Future.result(seconds)`: the function may itself raise TimeoutError.
        done, _ = concurrent.futures.wait([self._future], timeout=seconds)
        if done:
            return self._future.result()
        self._given_up.set()
        self._tracker.let_go()
        raise _StillRunningError

    def _run(self) -> None:
        statesampler.set_current_tracker(self._tracker)
        try:
            self._future.set_result(_run_to_its_end(self._function, self._given_up.is_set))
        except BaseException as error:
            self._future.set_exception(error)


class _Tracker:
    """Beam's tracker, by which metrics and logs find their step, for another thread to use."""

    def __init__(self, tracker: Any) -> None:
        self._tracker = tracker

    def let_go(self) -> None:
        """By then Beam's tracker is about other work."""
        self._tracker = None

    def update_metric(self, name: Any, value: Any) -> None:
        if tracker := self._tracker:
            tracker.update_metric(name, value)

    def current_state(self) -> Any:
        tracker = self._tracker
        return tracker.current_state() if tracker else None


class _Values(list[Any]):
    """What a generator has yielded, as opposed to a list that a function returns."""


def _run_to_its_end(call: Callable[[], Any], must_stop: Callable[[], bool] = lambda: False) -> Any:
    result = call()
    if not isinstance(result, types.GeneratorType):
        return result
    values = _Values()
    for value in result:
        if must_stop():
            result.close()
            break
        values.append(value)
    return values


def _replayed(result: Any) -> Any:
    """The result of `_run_to_its_end`, with a generator again where there was one."""
    return _yield_all(result) if isinstance(result, _Values) else result


def _yield_all(values: _Values) -> Iterator[Any]:
    yield from values


def _namespace(function: Callable[..., Any], args: tuple[Any, ...]) -> str:
    first_parameter = next(iter(inspect.signature(function).parameters), None)
    return type(args[0]).__name__ if first_parameter == "self" else function.__name__
