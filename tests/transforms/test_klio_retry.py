"""Trying user code again, and giving it up after a time."""

import contextvars
import logging
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
import cloudpickle
import pytest
import tenacity
from apache_beam.metrics import Metrics
from apache_beam.pvalue import TaggedOutput
from apache_beam.testing.util import assert_that, equal_to

from beamsplitter.transforms.klio.decorators import handle_binary, handle_klio
from beamsplitter.transforms.klio.message import new_message, parse_message
from beamsplitter.transforms.klio.retry import (
    KlioRetriesExhausted,
    KlioTimeoutError,
    retry,
    timeout,
)


def encoded(element: str = "x", payload: bytes = b"in") -> bytes:
    return new_message(element, payload=payload).SerializeToString()


def payload_of(message: bytes) -> bytes:
    return parse_message(message).data.payload


def counters(result: Any, namespace: str) -> dict[str, int]:
    found = result.metrics().query(beam.metrics.MetricsFilter().with_namespace(namespace))
    return {counter.key.metric.name: counter.committed for counter in found["counters"]}


class Flaky:
    """Fails as often as there are failures, then succeeds."""

    def __init__(self, *failures: BaseException) -> None:
        self.failures = list(failures)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return "done"


def called(flaky: Flaky, **options: Any) -> Any:
    @retry(**options)
    def call() -> str:
        return flaky()

    return call()


class TestRetry:
    def test_succeeds_at_last(self) -> None:
        flaky = Flaky(OSError(), ValueError(), OSError())
        assert called(flaky) == "done"
        assert flaky.calls == 4

    @pytest.mark.parametrize("tries", [1, 3])
    def test_number_of_calls(self, tries: int) -> None:
        flaky = Flaky(*(ValueError() for _ in range(9)))
        with pytest.raises(KlioRetriesExhausted):
            called(flaky, tries=tries)
        assert flaky.calls == tries

    @pytest.mark.parametrize("exception", [OSError, (KeyError, OSError)])
    def test_other_exceptions_are_raised_at_once(self, exception: Any) -> None:
        flaky = Flaky(FileNotFoundError(), ValueError("another"), OSError())
        with pytest.raises(ValueError, match="another"):
            called(flaky, tries=9, exception=exception)
        assert flaky.calls == 2

    def test_the_message_is_that_of_the_last_failure_in_every_call(self) -> None:
        """Klio gave the first message that it ever made, for all messages after it."""

        @retry(tries=2)
        def fail(*texts: str) -> None:
            raise ValueError(next(remaining))

        for texts in ("one", "two"), ("three", "four"):
            remaining = iter(texts)
            with pytest.raises(KlioRetriesExhausted, match=f"2 times.*ValueError: {texts[1]}") as e:
                fail()
            assert isinstance(e.value.__cause__, ValueError)

    def test_own_exception_and_message(self) -> None:
        class GivenUpError(Exception):
            pass

        with pytest.raises(GivenUpError, match=r"^too bad$"):
            called(
                Flaky(KeyError()),
                tries=1,
                raise_exception=GivenUpError,
                exception_message="too bad",
            )

    def test_tenacitys_own_error_is_no_end_of_retries(self) -> None:
        error = tenacity.RetryError(tenacity.Future(1))
        with pytest.raises(tenacity.RetryError):
            called(Flaky(error), tries=2, exception=OSError)

    def test_waits_between_tries_only(self) -> None:
        began = time.perf_counter()
        with pytest.raises(KlioRetriesExhausted):
            called(Flaky(*[ValueError()] * 3), tries=3, delay=0.1)
        assert 0.2 <= time.perf_counter() - began < 0.3

    def test_log(self, caplog: pytest.LogCaptureFixture) -> None:
        called(Flaky(ValueError("first")), tries=3)
        [record] = caplog.records
        assert record.levelno == logging.WARNING
        assert "try 1 of 3" in record.getMessage()
        assert "ValueError: first" in record.getMessage()

    @pytest.mark.parametrize("tries", [0, -2])
    def test_no_tries_is_an_error(self, tries: int) -> None:
        """In Klio a function with tries=0 was never called and gave None."""
        with pytest.raises(ValueError, match="at least 1"):
            retry(tries=tries)

    def test_bad_options(self) -> None:
        with pytest.raises(ValueError, match="delay"):
            retry(delay=-1)
        with pytest.raises(TypeError, match="parentheses"):
            retry(lambda: None)

    def test_a_generator_gives_all_values_of_the_successful_try(self) -> None:
        """Klio kept the first value only."""
        flaky = Flaky(ValueError(), ValueError())

        @retry(tries=3)
        def generate(first: str, *, last: str) -> Iterator[str]:
            yield f"{first} {flaky.calls}"
            yield flaky()
            yield last

        assert list(generate("first", last="last")) == ["first 2", "done", "last"]

    def test_a_generator_that_fails_gives_nothing(self) -> None:
        @retry(tries=2)
        def generate() -> Iterator[int]:
            yield 1
            raise ValueError

        with pytest.raises(KlioRetriesExhausted):
            generate()

    def test_lists_stay_lists(self) -> None:
        assert retry(tries=1)(lambda: [1])() == [1]
        assert timeout(9)(lambda: [1])() == [1]

    def test_arguments_by_any_name(self) -> None:
        def keep(**options: int) -> dict[str, int]:
            return options

        names = {"function": 1, "call": 2, "fn": 3, "tries": 4, "seconds": 5}
        assert retry()(keep)(**names) == timeout(9)(keep)(**names) == names

    def test_wraps(self) -> None:
        @retry()
        @timeout(9)
        def documented() -> None:
            """What it does."""

        assert (documented.__name__, documented.__doc__) == ("documented", "What it does.")


class TestTimeout:
    def test_in_time(self) -> None:
        assert timeout(9)(lambda: "done")() == "done"

    def test_too_late(self) -> None:
        began = time.perf_counter()
        with pytest.raises(KlioTimeoutError, match=r"sleep_long took longer than 0.1 s"):
            sleep_long()
        assert 0.1 <= time.perf_counter() - began < 1

    def test_own_exception_and_message(self) -> None:
        @timeout(0.05, exception=OSError, exception_message="too slow")
        def wait() -> None:
            time.sleep(1)

        for _ in range(2):
            with pytest.raises(OSError, match=r"^too slow$"):
                wait()

    @pytest.mark.parametrize("error", [TimeoutError("mine"), ValueError("mine"), SystemExit(3)])
    def test_exceptions_of_the_code(self, error: BaseException) -> None:
        @timeout(9)
        def fail() -> None:
            raise error

        with pytest.raises(type(error)) as raised:
            fail()
        assert raised.value is error
        assert any(entry.name == "fail" for entry in raised.traceback)

    def test_a_generator_gives_all_its_values(self) -> None:
        """Klio kept the first value only."""
        generated = timeout(9)(lambda: (i for i in range(3)))()
        assert list(generated) == [0, 1, 2]

    def test_time_is_that_of_the_whole_generator(self) -> None:
        @timeout(0.2)
        def generate() -> Iterator[int]:
            for value in range(50):
                time.sleep(0.02)
                yield value

        with pytest.raises(KlioTimeoutError):
            list(generate())

    def test_time_leaves_out_what_is_downstream(self) -> None:
        values = []
        for value in timeout(0.2)(lambda: (i for i in range(3)))():
            time.sleep(0.1)
            values.append(value)
        assert values == [0, 1, 2]

    def test_a_generator_given_up_ends_at_its_next_value(self) -> None:
        closed = threading.Event()

        @timeout(0.05)
        def generate() -> Iterator[int]:
            try:
                while True:
                    time.sleep(0.01)
                    yield 1
            finally:
                closed.set()

        with pytest.raises(KlioTimeoutError):
            generate()
        assert closed.wait(5)

    def test_concurrent_calls_keep_their_results(self) -> None:
        """Klio kept the state of a call in the decorator: calls of other threads lost theirs."""

        @timeout(10)
        def work(number: int) -> int:
            time.sleep(0.01 * (number % 5))
            if number % 3 == 0:
                raise ValueError(number)
            return number

        def call(number: int) -> None:
            try:
                results[number] = work(number)
            except ValueError as error:
                results[number] = -error.args[0]

        results: dict[int, int] = {}
        run_in_threads([lambda number=number: call(number) for number in range(30)])
        assert results == {n: -n if n % 3 == 0 else n for n in range(30)}

    def test_one_call_in_time_and_one_too_late_at_once(self) -> None:
        @timeout(0.3)
        def wait(seconds: float) -> float:
            time.sleep(seconds)
            return seconds

        def late() -> None:
            with pytest.raises(KlioTimeoutError):
                wait(0.9)
            results.append("late")

        results: list[Any] = []
        run_in_threads([late, lambda: results.append(wait(0.01)), late])
        assert results == [0.01, "late", "late"]

    def test_runs_in_this_process_with_its_objects(self) -> None:
        lock = threading.Lock()  # can't be pickled
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
        variable.set("of the caller")

        @timeout(9)
        def look() -> tuple[int, Any, str]:
            return os.getpid(), lock, variable.get()

        assert look() == (os.getpid(), lock, "of the caller")

    @pytest.mark.parametrize("seconds", [0, -1, float("nan")])
    def test_bad_time(self, seconds: float) -> None:
        with pytest.raises(ValueError, match="above 0"):
            timeout(seconds)

    def test_without_parentheses(self) -> None:
        with pytest.raises(TypeError, match="parentheses"):
            timeout(lambda: None)


@timeout(0.1)
def sleep_long() -> None:
    time.sleep(2)


def run_in_threads(calls: list[Callable[[], Any]]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class FailsTwice(beam.DoFn):
    """Of each message the first two tries fail, after a value; of "bad" every one."""

    def __init__(self) -> None:
        self.tries: dict[bytes, int] = {}

    @handle_klio
    @retry(tries=3)
    def process(self, item: Any) -> Iterator[Any]:
        self.tries[item.element] = self.tries.get(item.element, 0) + 1
        yield str(self.tries[item.element])
        if item.element == b"bad" or self.tries[item.element] < 3:
            raise ValueError(item.element)
        yield TaggedOutput("tag", item.payload)


class Slow(beam.DoFn):
    @handle_klio
    @timeout(0.2)
    def process(self, item: Any) -> Iterator[Any]:
        Metrics.counter("Slow", "started").inc()
        yield item.payload
        if item.element == b"bad":
            time.sleep(2)
            Metrics.counter("Slow", "after the end").inc()
        yield item.payload * 2


@handle_klio
@retry(tries=2)
def shout(ctx: Any, item: Any) -> bytes:
    if item.element == b"bad":
        raise OSError("bad")
    return item.payload.upper()


@handle_klio
@retry(tries=2, exception=KlioTimeoutError)
@timeout(0.1)
@handle_binary(skip_load=True, skip_dump=True)
def both(ctx: Any, item: Any) -> Iterator[bytes]:
    if item.element == b"bad":
        time.sleep(0.5)
    yield item.payload
    yield ctx.job.job_name.encode()


class TestInBeam:
    @pytest.mark.parametrize(
        ("transform", "main", "tagged", "expected_counters"),
        [
            (
                lambda: beam.ParDo(FailsTwice()),
                [b"3"],
                [b"in"],
                {
                    "kmsg-received": 2,
                    "kmsg-success": 2,
                    "kmsg-retry-attempt": 4,
                    "kmsg-drop-retry-error": 1,
                    "kmsg-drop-error": 1,
                },
            ),
            (
                lambda: beam.ParDo(Slow()),
                [b"in", b"inin"],
                [],
                {
                    "kmsg-received": 2,
                    "kmsg-success": 2,
                    "kmsg-drop-timed-out": 1,
                    "kmsg-drop-error": 1,
                    "started": 2,
                },
            ),
            (
                lambda: beam.Map(shout),
                [b"IN"],
                [],
                {
                    "kmsg-received": 2,
                    "kmsg-success": 1,
                    "kmsg-retry-attempt": 1,
                    "kmsg-drop-retry-error": 1,
                    "kmsg-drop-error": 1,
                },
            ),
            (
                lambda: beam.FlatMap(both),
                [b"in", b"job"],
                [],
                {
                    "kmsg-received": 2,
                    "kmsg-success": 2,
                    "kmsg-drop-timed-out": 2,
                    "kmsg-retry-attempt": 1,
                    "kmsg-drop-retry-error": 1,
                    "kmsg-drop-error": 1,
                },
            ),
        ],
        ids=["FailsTwice", "Slow", "shout", "both"],
    )
    def test_outputs_and_counters(
        self,
        request: pytest.FixtureRequest,
        transform: Callable[[], beam.PTransform],
        main: list[bytes],
        tagged: list[bytes],
        expected_counters: dict[str, int],
    ) -> None:
        pipeline = beam.Pipeline(runner="FnApiRunner")
        outputs = (
            pipeline
            | beam.Create([encoded("good"), encoded("bad")])
            | transform().with_outputs("tag", "drop", main="main")
        )
        payloads = outputs.main | "Main" >> beam.Map(payload_of)
        assert_that(payloads, equal_to(main), label="main")
        payloads = outputs.tag | "Tag" >> beam.Map(payload_of)
        assert_that(payloads, equal_to(tagged), label="tag")
        assert_that(outputs.drop, equal_to([encoded("bad")]), label="drop")
        result = pipeline.run()
        result.wait_until_finish()
        assert counters(result, request.node.callspec.id) == expected_counters

    def test_outside_a_pipeline(self) -> None:
        assert payload_of(shout(encoded())) == b"IN"
        assert list(map(payload_of, both(encoded()))) == [b"in", b"job"]

    def test_pickles_by_value(self) -> None:
        @retry(tries=2)
        @timeout(9)
        def local(text: str) -> str:
            return text

        assert pickle.loads(cloudpickle.dumps(local))("x") == "x"
