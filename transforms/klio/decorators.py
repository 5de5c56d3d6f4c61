"""Decorators that make Beam steps out of functions of an element and its payload.

    class Louder(beam.DoFn):
        @handle_klio
        @handle_binary
        def process(self, item):
            self._klio.logger.info("making %s louder", item.element)
            yield item.payload * 2

    @handle_klio
    def shout(ctx, item):
        return item.payload.upper()

    messages | beam.ParDo(Louder()).with_outputs("drop", main="louder")
    messages | beam.Map(shout)

Between steps messages are bytes (see `klio_message`). The user code sees `item.element` and
`item.payload`, and what it returns or yields becomes the payload of the next message; metadata and
element stay. Yielded `TaggedOutput`s keep their tag, `TimestampedValue`s their timestamp.

An exception in the user code costs that message only: it goes, as it came, to the output tagged
"drop", is logged as an error with its traceback, and counted. Each step counts `kmsg-received`,
`kmsg-success` (messages out), `kmsg-drop-error`, and takes the time of the user code in
`kmsg-timer` (ms, or as the job's `metrics` have it), in the namespace of its class or function.

A function whose first parameter is called `self` is taken for a method. A generator, and any
method called `process`, gives its outputs one after the other (beam.ParDo, beam.FlatMap); any other
function or method gives one output (beam.Map).
"""

import contextlib
import dataclasses
import functools
import inspect
import time
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import TimestampedValue

from .context import KlioContext, context_of, default_context
from .message import (
    Data,
    KlioMessageError,
    array_from_bytes,
    array_to_bytes,
    parse_message,
    with_payload,
)
from .utils import ThreadLimit, ThreadLimiter


@dataclasses.dataclass(eq=False)
class BinaryItem:
    """What the user code sees below `handle_binary`."""

    element: bytes
    payload: Any


def handle_klio(
    function: Callable[..., Any] | None = None,
    *,
    max_thread_count: int | Callable[[], int] | ThreadLimit | None = None,
    thread_limiter: ThreadLimiter | None = None,
) -> Any:
    """Makes a Beam step, messages in and out, of user code that takes the message's data.

    Goes on methods of a DoFn, which find the context at `self._klio`; on functions, which get it
    as first argument; and on the `expand` of a PTransform, which only gets `self._klio`.

    Parameters
    ----------
    max_thread_count
        how many threads of a worker process may run this code at once: a number, a function
        that gives it on the worker, `ThreadLimit.NONE` for no limit, or, by default as in Klio,
        `ThreadLimit.DEFAULT`, as many as there are processors. It holds for the user code alone:
        while steps further down work on what was yielded, the place is free.
    thread_limiter
        instead, a limiter to share with other steps.

    Raises
    ------
    TypeError
        `max_thread_count` or `thread_limiter` is anything else
    ValueError
        both are given, or `max_thread_count` is below 1

    A function that gives no such number fails the bundle, not the message.
    """
    if max_thread_count is not None and thread_limiter is not None:
        raise ValueError("Give max_thread_count or thread_limiter, not both.")
    if thread_limiter is not None and not isinstance(thread_limiter, ThreadLimiter):
        raise TypeError(
            f"thread_limiter is a ThreadLimiter, such as ThreadLimiter(2), not {thread_limiter!r}; "
            "a number goes into max_thread_count."
        )
    count = ThreadLimit.DEFAULT if max_thread_count is None else max_thread_count

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        limiter = thread_limiter or ThreadLimiter(count, function.__qualname__)
        if not _is_method(function):
            return inject_klio_context(_serialize(function, limiter))
        if function.__name__ == "expand":
            return set_klio_context(function)
        return set_klio_context(_serialize(function, limiter))

    return decorate if function is None else decorate(function)


def set_klio_context(method: Callable[..., Any]) -> Callable[..., Any]:
    """Sets `self._klio`, the context of the job, before the method runs. For any method."""

    @functools.wraps(method)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._klio = context_of(self)
        return method(self, *args, **kwargs)

    return _marked(wrapper, "method")


def inject_klio_context(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a function the context as first argument, a method as the first after `self`."""
    if _is_method(function):

        @functools.wraps(function)
        def method_wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
            return function(self, context_of(self), *args, **kwargs)

        return _marked(_without_parameter(method_wrapper, 1), "method")

    @functools.wraps(function)
    def wrapper(*args: Any, klio_context: KlioContext | None = None, **kwargs: Any) -> Any:
        return function(klio_context or default_context(), *args, **kwargs)

    return _marked(_without_parameter(wrapper, 0), "function")


def serialize_klio_message(function: Callable[..., Any]) -> Callable[..., Any]:
    """The part of `handle_klio` that reads and writes messages, without setting the context.

    Goes below `set_klio_context` or `inject_klio_context`.
    """
    return _serialize(function, ThreadLimiter(ThreadLimit.NONE))


def handle_binary(
    function: Callable[..., Any] | None = None,
    *,
    skip_load: bool = False,
    skip_dump: bool = False,
    load_with_numpy: bool = True,
    save_with_numpy: bool = True,
) -> Any:
    """Turns the payload from npy bytes into an array, and the resulting array into npy bytes.

    Goes below `handle_klio`. Nothing is ever pickled or unpickled, unlike in Klio, whose payloads
    could run code.

    Parameters
    ----------
    skip_load
        hand the payload over as bytes.
    skip_dump
        the result is bytes or text rather than an array.
    load_with_numpy, save_with_numpy
        known for Klio's sake; it is always done with NumPy.
    """

    def load(data: Data) -> BinaryItem:
        return BinaryItem(data.element, data.payload if skip_load else _load_array(data))

    def dump(item: BinaryItem, value: Any) -> Any:
        if value is None or value is item:
            return None
        return value if skip_dump else _dump_array(value)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        place = _ElementPlace(function)

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            item = load(place.get(args, kwargs))
            args, kwargs = place.replace(args, kwargs, item)
            result = function(*args, **kwargs)
            dump_value = functools.partial(_map_value, functools.partial(dump, item))
            if _is_generator(result):
                return (dump_value(value) for value in result)
            return dump_value(result)

        return wrapper

    return decorate if function is None else decorate(function)


def _load_array(data: Data) -> np.ndarray:
    if not data.payload:
        raise KlioMessageError(
            "The payload is empty where an array is expected; "
            "a step that needs no array says handle_binary(skip_load=True)."
        )
    return array_from_bytes(data.payload)


def _dump_array(value: Any) -> bytes:
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError(
            f"handle_binary stores NumPy arrays, not {type(value).__name__}; "
            "for bytes and text say handle_binary(skip_dump=True)."
        )
    return array_to_bytes(np.asarray(value))


def _serialize(function: Callable[..., Any], thread_limiter: ThreadLimiter) -> Callable[..., Any]:
    """Wraps `function(self or ctx, data, …)` into one that takes and gives bytes."""
    place = _ElementPlace(function)
    gives_many = _gives_many(function)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        outputs = _outputs(function, place, thread_limiter, gives_many, args, kwargs)
        if gives_many:
            return outputs
        [output] = outputs
        return output

    output_type = Iterable[bytes] if gives_many else bytes
    vars(wrapper)["__signature__"] = place.signature_of_bytes(output_type)
    return wrapper


def _outputs(
    function: Callable[..., Any],
    place: "_ElementPlace",
    thread_limiter: ThreadLimiter,
    gives_many: bool,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Iterator[bytes | TaggedOutput | TimestampedValue]:
    """The messages out of one message; exactly one unless `gives_many`."""
    is_function = isinstance(args[0], KlioContext)
    context = args[0] if is_function else context_of(args[0])
    name = function.__name__ if is_function else type(args[0]).__name__
    metrics = context.metrics
    encoded = place.get(args, kwargs)
    element = b"that can't be read"
    user_code = _UserCode(thread_limiter)

    metrics.counter("kmsg-received", transform=name).inc()
    try:
        message = parse_message(encoded, allow_non_klio=context.allow_non_klio_messages)
        element = message.data.element
        args, kwargs = place.replace(args, kwargs, message.data)
        for value in user_code.values(functools.partial(function, *args, **kwargs), gives_many):
            output = _map_value(lambda v: with_payload(message, v).SerializeToString(), value)
            metrics.counter("kmsg-success", transform=name).inc()
            yield output
    except Exception:
        metrics.counter("kmsg-drop-error", transform=name).inc()
        context.logger.exception("%s drops the message %r", name, element[:200])
        yield TaggedOutput("drop", encoded)
    finally:
        timer = metrics.timer("kmsg-timer", transform=name, timer_unit=metrics.step_timer_unit)
        timer.record(user_code.nanoseconds)


class _UserCode:
    """Runs the user code on one message, limited and timed, but not what is done downstream."""

    def __init__(self, thread_limiter: ThreadLimiter) -> None:
        self._places = thread_limiter.semaphore() or contextlib.nullcontext()
        self.nanoseconds = 0

    def values(self, call: Callable[[], Any], gives_many: bool) -> Iterator[Any]:
        result = self._run(call)
        if not (gives_many and _is_generator(result)):
            yield result
            return
        end = object()
        # Beam runs the fused steps further down while this generator is suspended at its yield.
        # Were the limiter still held there, a step down there sharing it could never go on.
        while (value := self._run(lambda: next(result, end))) is not end:
            yield value

    def _run(self, call: Callable[[], Any]) -> Any:
        with self._places:
            began = time.perf_counter_ns()
            try:
                return call()
            finally:
                self.nanoseconds += time.perf_counter_ns() - began


class _ElementPlace:
    """Where the element stands among the arguments of a step.

    It follows `self` or `ctx`, unless another parameter is declared with `DoFn.ElementParam`.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._signature = inspect.signature(function)
        parameters = list(self._signature.parameters.values())
        if len(parameters) < 2:
            raise TypeError(
                f"{function.__qualname__} takes too few arguments: a step takes self or ctx, and "
                "then the element."
            )
        declared = [p for p in parameters if p.default is beam.DoFn.ElementParam]
        self._parameter = declared[0] if declared else parameters[1]
        self._index = parameters.index(self._parameter)

    def get(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return args[self._index] if self._index < len(args) else kwargs[self._parameter.name]

    def replace(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self._index < len(args):
            return (*args[: self._index], value, *args[self._index + 1 :]), kwargs
        return args, {**kwargs, self._parameter.name: value}

    def signature_of_bytes(self, output_type: Any) -> inspect.Signature:
        # The user annotates what the user code takes and gives; Beam takes annotations for the
        # types of the elements, and these are bytes.
        parameters = [
            p.replace(annotation=bytes) if p is self._parameter else p
            for p in self._signature.parameters.values()
        ]
        return inspect.Signature(parameters, return_annotation=output_type)


def _map_value(convert: Callable[[Any], Any], value: Any) -> Any:
    """Converts what was yielded, inside its tag and timestamp."""
    if isinstance(value, TaggedOutput):
        return TaggedOutput(value.tag, _map_value(convert, value.value))
    if isinstance(value, TimestampedValue):
        return TimestampedValue(_map_value(convert, value.value), value.timestamp)
    return convert(value)


def _is_method(function: Callable[..., Any]) -> bool:
    return next(iter(inspect.signature(function).parameters), None) == "self"


def _gives_many(function: Callable[..., Any]) -> bool:
    if _is_method(function) and function.__name__ == "process":
        return True
    return inspect.isgeneratorfunction(inspect.unwrap(function))


def _is_generator(value: Any) -> bool:
    return isinstance(value, types.GeneratorType)


def _without_parameter(function: Callable[..., Any], index: int) -> Callable[..., Any]:
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    del parameters[index]
    vars(function)["__signature__"] = signature.replace(parameters=parameters)
    return function


def _marked(function: Callable[..., Any], kind: str) -> Callable[..., Any]:
    vars(function)["_klio_decorated"] = kind  # what bind_context looks for
    return function
