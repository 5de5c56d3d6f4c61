import logging
import pickle
import threading
import time

import apache_beam as beam
import numpy as np
import pydantic
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import AsList, TaggedOutput
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, GlobalWindow, TimestampedValue
from facts import assert_names

from beamsplitter.transforms.klio.context import (
    KlioContext,
    KlioMetrics,
    bind_context,
    default_context,
)
from beamsplitter.transforms.klio.decorators import (
    handle_binary,
    handle_klio,
    inject_klio_context,
    serialize_klio_message,
    set_klio_context,
)
from beamsplitter.transforms.klio.message import (
    KlioJob,
    array_from_bytes,
    array_to_bytes,
    new_message,
    parse_message,
)
from beamsplitter.transforms.klio.utils import ThreadLimit, ThreadLimiter

ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)


def encoded(element="x", payload=b"in"):
    return new_message(element, payload=payload).SerializeToString()


def payloads(outputs):
    return [parse_message(output).data.payload for output in outputs]


def run_options(*more):
    return PipelineOptions(["--runner=FnApiRunner", *more])


def counters(result, namespace):
    found = result.metrics().query(beam.metrics.MetricsFilter().with_namespace(namespace))
    return {counter.key.metric.name: counter.committed for counter in found["counters"]}


class Upper(beam.DoFn):
    @handle_klio
    def process(self, item):
        """Shouts."""
        yield item.payload.upper()
        yield TaggedOutput("element", item.element)


class Fails(beam.DoFn):
    @handle_klio
    def process(self, item):
        yield b"first"
        if item.element == b"bad":
            raise RuntimeError("this one is bad")
        yield b"second"


@handle_klio
def shout(ctx, item):
    """Shouts."""
    if item.element == b"bad":
        raise TypeError("this one is bad")
    return item.payload.upper() + ctx.job.job_name.encode()


@handle_klio
def twice(ctx, item):
    yield item.payload
    if item.element == b"bad":
        raise RuntimeError("this one is bad")
    yield item.payload


class TestPlainCalls:
    """Without a pipeline, as in a user's unit tests."""

    def test_generator(self):
        main, tagged = Upper().process(encoded())
        assert payloads([main, tagged.value]) == [b"IN", b"x"]
        assert tagged.tag == "element"

    @pytest.mark.parametrize("result", [b"out", "out", None])
    def test_plain_process(self, result):
        class Returns(beam.DoFn):
            @handle_klio()
            def process(self, item):
                return result

        [output] = Returns().process(encoded())
        assert payloads([output]) == [b"out" if result else b""]
        assert parse_message(output).data.element == b"x"

    def test_process_that_returns_a_generator(self):
        class Returns(beam.DoFn):
            @handle_klio
            def process(self, item):
                return (bytes([byte]) for byte in item.payload)

        assert payloads(Returns().process(encoded())) == [b"i", b"n"]

    def test_process_that_yields_nothing(self):
        class Filter(beam.DoFn):
            @handle_klio
            def process(self, item):
                yield from ()

        assert list(Filter().process(encoded())) == []

    def test_other_method_of_a_dofn(self):
        class Helps(beam.DoFn):
            @handle_klio
            def analyse(self, item):
                return item.payload + self._klio.job.job_name.encode()

        assert payloads([Helps().analyse(encoded())]) == [b"injob"]

    def test_functions(self):
        assert payloads([shout(encoded())]) == [b"INjob"]
        assert payloads(twice(encoded())) == [b"in", b"in"]

    def test_element_by_name(self):
        assert payloads([shout(item=encoded())]) == [b"INjob"]

    def test_payload_under_the_hands_of_a_generator(self):
        """Klio wrote each output into the very message that the user code went on to read."""

        class Looks(beam.DoFn):
            @handle_klio
            def process(self, item):
                yield b"first"
                yield item.payload

        assert payloads(Looks().process(encoded())) == [b"first", b"in"]

    def test_wraps(self):
        assert Upper.process.__doc__ == shout.__doc__ == "Shouts."
        assert Upper.process.__qualname__ == "Upper.process"
        assert shout.__name__ == "shout"

    def test_without_an_element(self):
        with pytest.raises(TypeError, match="too few"):

            @handle_klio
            def no_context(item):
                pass


class TestMetadata:
    """Klio's handle_binary example lost version, recipients, force and audit log."""

    def message(self):
        message = new_message(
            "x", payload=array_to_bytes(ARRAY), recipients=[KlioJob(job_name="job")]
        )
        message.metadata.force = message.metadata.ping = True
        message.metadata.job_audit_log.add(klio_job=KlioJob(job_name="earlier"))
        return message

    def test_is_on_every_output(self):
        class Step(beam.DoFn):
            @handle_klio
            @handle_binary
            def process(self, item):
                yield item.payload
                yield TaggedOutput("tag", item.payload)

        main, tagged = Step().process(self.message().SerializeToString())
        assert parse_message(main) == self.message()
        assert parse_message(tagged.value) == self.message()

    def test_of_version_1(self):
        message = new_message("id", version=1).SerializeToString()
        output = parse_message(shout(message))
        assert (output.version, output.data.entity_id, output.data.payload) == (1, "id", b"")


class TestFailures:
    def test_generator_keeps_what_came_before(self, caplog):
        message = encoded("bad")
        first, dropped = Fails().process(message)
        assert payloads([first]) == [b"first"]
        assert (dropped.tag, dropped.value) == ("drop", message)
        [record] = caplog.records
        assert record.levelno == logging.ERROR
        assert "Fails drops the message b'bad'" in caplog.text
        assert "RuntimeError: this one is bad" in caplog.text

    def test_type_error_in_a_function(self, caplog):
        """Klio raised these, so that one message failed the bundle."""
        dropped = shout(encoded("bad"))
        assert (dropped.tag, dropped.value) == ("drop", encoded("bad"))
        assert "TypeError: this one is bad" in caplog.text

    def test_generator_function(self):
        first, dropped = twice(encoded("bad"))
        assert payloads([first]) == [b"in"]
        assert (dropped.tag, dropped.value) == ("drop", encoded("bad"))

    @pytest.mark.parametrize("raw", [b"song.wav", b"\xff", "text"])
    def test_undecodable(self, raw, caplog):
        [dropped] = Upper().process(raw)
        assert (dropped.tag, dropped.value) == ("drop", raw)
        assert shout(raw).value == raw
        [dropped] = twice(raw)
        assert dropped.value == raw
        assert len(caplog.records) == 3

    def test_a_message_of_no_bytes_is_one_without_an_element(self):
        """As in Klio: version 1, whose payload never changes."""
        seen = []

        @handle_klio
        def step(ctx, item):
            seen.append((item.element, item.payload))
            return b"new"

        out = parse_message(step(b""))
        assert seen == [(b"", b"")]
        assert (out.version, out.data.payload) == (1, b"")

    @pytest.mark.parametrize("value", [{"a": 1}, [b"a list"], iter([b"x"]), 1.5])
    def test_not_a_payload(self, value, caplog):
        class Step(beam.DoFn):
            @handle_klio
            def process(self, item):
                yield value

        [dropped] = Step().process(encoded())
        assert (dropped.tag, dropped.value) == ("drop", encoded())
        assert type(value).__name__ in caplog.text

    @pytest.mark.parametrize("error", [StopIteration, GeneratorExit])
    def test_stop_iteration_is_no_end(self, error):
        class Step(beam.DoFn):
            @handle_klio
            def process(self, item):
                raise error

        if error is StopIteration:
            [dropped] = Step().process(encoded())
            assert dropped.tag == "drop"
        else:
            with pytest.raises(GeneratorExit):
                list(Step().process(encoded()))

    def test_huge_payload_is_not_logged(self, caplog):
        shout(encoded("bad", payload=bytes(10**6)))
        assert len(caplog.text) < 5000


class TestHandleBinary:
    def run(self, process, payload=ARRAY):
        class Step(beam.DoFn):
            pass

        Step.process = process
        return list(Step().process(encoded(payload=payload)))

    def test_array_in_array_out(self):
        @handle_klio
        @handle_binary
        def process(self, item):
            assert item.element == b"x"
            item.payload *= 2
            return item.payload

        [payload] = payloads(self.run(process))
        np.testing.assert_array_equal(array_from_bytes(payload), 2 * ARRAY)

    def test_generator_with_tags(self):
        @handle_klio
        @handle_binary(load_with_numpy=True, save_with_numpy=True)
        def process(self, item):
            yield item.payload
            yield TaggedOutput("phase", item.payload + 1j)
            yield item.payload.max()

        main, tagged, scalar = self.run(process)
        assert tagged.tag == "phase"
        got = [array_from_bytes(p) for p in payloads([main, tagged.value, scalar])]
        np.testing.assert_array_equal(got[0], ARRAY)
        np.testing.assert_array_equal(got[1], ARRAY + 1j)
        assert got[2] == 5
        assert got[2].dtype == np.float32

    @pytest.mark.parametrize("what", [lambda item: None, lambda item: item])
    def test_nothing_new(self, what):
        @handle_klio
        @handle_binary
        def process(self, item):
            return what(item)

        assert payloads(self.run(process)) == [b""]

    def test_skip_load(self):
        @handle_klio
        @handle_binary(skip_load=True)
        def process(self, item):
            yield np.frombuffer(item.payload, np.uint8)

        [payload] = payloads(self.run(process, b"in"))
        assert array_from_bytes(payload).tolist() == list(b"in")

    @pytest.mark.parametrize("result", ["5 maximum", b"5 maximum"])
    def test_skip_dump(self, result):
        @handle_klio
        @handle_binary(skip_dump=True)
        def process(self, item):
            yield result

        assert payloads(self.run(process)) == [b"5 maximum"]

    @pytest.mark.parametrize("result", [b"bytes", "text", [1.0], np.array([{}])])
    def test_only_arrays_are_dumped(self, result, caplog):
        @handle_klio
        @handle_binary
        def process(self, item):
            yield result

        [dropped] = self.run(process)
        assert dropped.tag == "drop"
        assert "skip_dump" in caplog.text or "numeric dtype" in caplog.text

    def test_pickled_payload_is_not_executed(self, tmp_path, caplog):
        class Exploit:
            def __reduce__(self):
                return (tmp_path / "executed").mkdir, ()

        @handle_klio
        @handle_binary
        def process(self, item):
            yield item.payload

        np.save(tmp_path / "exploit.npy", np.array([Exploit()]), allow_pickle=True)
        for payload in (tmp_path / "exploit.npy").read_bytes(), pickle.dumps(Exploit()):
            [dropped] = self.run(process, payload)
            assert dropped.tag == "drop"
        assert not (tmp_path / "executed").exists()

    def test_empty_payload_says_what_to_do(self, caplog):
        @handle_klio
        @handle_binary
        def process(self, item):
            yield item.payload

        [dropped] = self.run(process, None)
        assert dropped.tag == "drop"
        assert "skip_load" in caplog.text

    def test_other_method_gets_its_own_self(self):
        """Klio passed the context as self."""

        class Step(beam.DoFn):
            factor = 3

            @handle_klio
            @handle_binary
            def multiply(self, item):
                assert isinstance(self._klio, KlioContext)
                return self.factor * item.payload

        [payload] = payloads([Step().multiply(encoded(payload=ARRAY))])
        np.testing.assert_array_equal(array_from_bytes(payload), 3 * ARRAY)

    def test_functions(self):
        @handle_klio
        @handle_binary
        def halve(ctx, item):
            assert isinstance(ctx, KlioContext)
            return item.payload / 2

        @handle_klio
        @handle_binary
        def rows(ctx, item):
            yield from item.payload

        [payload] = payloads([halve(encoded(payload=ARRAY))])
        np.testing.assert_array_equal(array_from_bytes(payload), ARRAY / 2)
        got = [array_from_bytes(p) for p in payloads(rows(encoded(payload=ARRAY)))]
        np.testing.assert_array_equal(got, ARRAY)


class Config(pydantic.BaseModel):
    job_config: dict


CONTEXT = KlioContext(
    config=Config(job_config={"allow_non_klio_messages": True, "letter": "b"}),
    job=KlioJob(job_name="bound"),
)


class Named(beam.DoFn):
    @handle_klio
    def process(self, item):
        yield self._klio.job.job_name


@handle_klio
def name_of_job(ctx, item):
    return ctx.job.job_name


@handle_klio
def name_of_job_and(ctx, item, more):
    yield ctx.job.job_name
    yield from more


@inject_klio_context
def injected(ctx, element):
    return ctx.job.job_name, element


class TestContext:
    def test_default(self):
        assert payloads(Named().process(encoded())) == [b"job"]
        assert payloads([name_of_job(encoded())]) == [b"job"]
        assert not default_context().allow_non_klio_messages

    def test_bound(self):
        named = bind_context(Named(), CONTEXT)
        assert payloads(named.process(encoded())) == [b"bound"]
        assert payloads([bind_context(name_of_job, CONTEXT)(encoded())]) == [b"bound"]
        assert payloads([name_of_job(encoded())]) == [b"job"]
        bound_again = bind_context(bind_context(name_of_job, default_context()), CONTEXT)
        assert payloads([bound_again(encoded())]) == [b"bound"]

    def test_nothing_to_bind(self):
        for target in beam.DoFn(), len, "text":
            with pytest.raises(TypeError, match="handle_klio"):
                bind_context(target, CONTEXT)

    def test_allow_non_klio_messages(self):
        step = bind_context(Named(), CONTEXT)
        [output] = step.process(b"song.wav")
        assert parse_message(output).data.element == b"song.wav"
        as_mapping = KlioContext(config={"job_config": {"allow_non_klio_messages": True}})
        assert as_mapping.allow_non_klio_messages

    def test_pickles(self):
        back = pickle.loads(pickle.dumps(bind_context(Named(), CONTEXT)))
        assert back._klio == CONTEXT

    def test_set_and_inject(self):
        class Step(beam.DoFn):
            @set_klio_context
            def setup(self):
                self.name = self._klio.job.job_name

            @inject_klio_context
            def process(self, ctx, element):
                yield ctx.job.job_name, self.name, element

        step = bind_context(Step(), CONTEXT)
        step.setup()
        assert list(step.process(1)) == [("bound", "bound", 1)]
        assert injected(1) == ("job", 1)
        assert bind_context(injected, CONTEXT)(1) == ("bound", 1)

    def test_serialize(self):
        class Step(beam.DoFn):
            @set_klio_context
            @serialize_klio_message
            def process(self, item):
                yield self._klio.job.job_name

        @inject_klio_context
        @serialize_klio_message
        def function(ctx, item):
            return ctx.job.job_name

        assert payloads(bind_context(Step(), CONTEXT).process(encoded())) == [b"bound"]
        assert payloads([bind_context(function, CONTEXT)(encoded())]) == [b"bound"]

    def test_expand(self):
        class Composite(beam.PTransform):
            @handle_klio
            def expand(self, pcoll):
                return self._klio.job.job_name, pcoll

        assert bind_context(Composite(), CONTEXT).expand("pcoll") == ("bound", "pcoll")

    def test_whole_pipeline(self):
        """Every kind of step sees the context that was bound to the pipeline, on the worker."""
        first = KlioContext(job=KlioJob(job_name="first"))
        pipeline = beam.Pipeline(options=run_options())
        messages = pipeline | beam.Create([encoded()])
        more = pipeline | "More" >> beam.Create(["more"])
        good, _ = messages | "Handled" >> beam.ParDo(Named()).with_exception_handling()
        plain, _ = messages | "HandledMap" >> beam.Map(name_of_job).with_exception_handling()
        outputs = [
            messages | beam.ParDo(Named()),
            messages | beam.Map(name_of_job),
            messages | beam.FlatMap(name_of_job_and, AsList(more)),
            messages | "Mine" >> beam.ParDo(bind_context(Named(), first)),
            messages | "MineMap" >> beam.Map(bind_context(name_of_job, first)),
            messages
            | "MineFlatMap" >> beam.FlatMap(bind_context(name_of_job_and, first), more=["more"]),
            good,
            plain,
        ]
        got = outputs | beam.Flatten() | "Payload" >> beam.Map(lambda m: payloads([m])[0])
        expected = [b"bound"] * 5 + [b"first"] * 3 + [b"more"] * 2
        assert_that(got, equal_to(expected))
        names = messages | beam.Map(injected) | beam.Keys()
        assert_that(names, equal_to(["bound"]), label="names")
        bind_context(pipeline, CONTEXT)
        pipeline.run().wait_until_finish()
        assert payloads([name_of_job(encoded())]) == [b"job"]


class TestMetrics:
    def test_counters(self):
        with beam.Pipeline(options=run_options()) as pipeline:
            messages = pipeline | beam.Create([encoded("good"), encoded("bad")])
            messages | beam.ParDo(Fails()).with_outputs("drop", main="out")
            messages | beam.Map(shout).with_outputs("drop", main="out")
        fails, shouts = counters(pipeline.result, "Fails"), counters(pipeline.result, "shout")
        assert fails == {"kmsg-received": 2, "kmsg-success": 3, "kmsg-drop-error": 1}
        assert shouts == {"kmsg-received": 2, "kmsg-success": 1, "kmsg-drop-error": 1}

    def test_own_metrics(self):
        class Measures(beam.DoFn):
            @handle_klio
            def process(self, item):
                metrics = self._klio.metrics
                metrics.counter("songs", transform="Measures").inc(2)
                metrics.gauge("level", transform="Measures").set(7)
                with metrics.timer("work", transform="Measures", timer_unit="us"):
                    time.sleep(0.01)
                metrics.counter("songs").inc()

        with beam.Pipeline(options=run_options()) as pipeline:
            pipeline | beam.Create([encoded()]) | beam.ParDo(Measures())
        assert counters(pipeline.result, "Measures")["songs"] == 2
        assert counters(pipeline.result, "klio") == {"songs": 1}
        found = pipeline.result.metrics().query()
        [gauge] = [g for g in found["gauges"] if g.key.metric.name == "level"]
        assert gauge.committed.value == 7
        [work] = [d for d in found["distributions"] if d.key.metric.name == "work"]
        assert 10_000 <= work.committed.sum < 1_000_000

    def test_timer_leaves_out_what_is_downstream(self):
        class Slow(beam.DoFn):
            @handle_klio
            def process(self, item):
                for _ in range(2):
                    time.sleep(0.02)
                    yield b""

        with beam.Pipeline(options=run_options()) as pipeline:
            slow = pipeline | beam.Create([encoded()]) | beam.ParDo(Slow())
            slow | beam.Map(lambda _: time.sleep(0.2))
        found = pipeline.result.metrics().query(beam.metrics.MetricsFilter().with_namespace("Slow"))
        [timer] = found["distributions"]
        assert timer.key.metric.name == "kmsg-timer"
        assert timer.committed.count == 1
        assert 40 <= timer.committed.sum < 200

    @pytest.mark.parametrize(
        ("metrics", "unit"),
        [
            ({}, "ms"),
            ({"native": {"timer_unit": "us"}}, "us"),
            ({"timer_unit": "seconds", "native": {"timer_unit": "us"}}, "s"),
            ({"timer_unit": "ns", "logger": {"timer_unit": "s"}}, "ns"),
        ],
    )
    def test_the_job_says_in_which_unit_steps_are_timed(self, metrics, unit, monkeypatch):
        told = []
        monkeypatch.setattr(
            "beamsplitter.transforms.klio.context.KlioTimer.record",
            lambda self, nanoseconds: told.append(self._unit),
        )
        config = {"job_config": {"metrics": metrics}}
        list(bind_context(Named(), KlioContext(config=config)).process(encoded()))
        assert told == [unit]

    def test_timers_are_not_shared(self, monkeypatch):
        """Klio had one timer for all threads: a step of 1 s reported 0.3 s."""
        recorded = []
        monkeypatch.setattr(
            "beamsplitter.transforms.klio.context.KlioTimer.record",
            lambda self, nanoseconds: recorded.append(nanoseconds),
        )

        @handle_klio
        def wait(ctx, item):
            time.sleep(float(item.element))

        elements = ["0.3", "0.05", "0.1"]
        threads = [threading.Thread(target=wait, args=[encoded(e)]) for e in elements]
        for thread in threads:
            thread.start()
            time.sleep(0.02)
        for thread in threads:
            thread.join()
        assert [round(n / 1e9, 1) for n in sorted(recorded)] == [0.1, 0.1, 0.3]

    def test_a_timer_of_a_step_may_be_used_by_several_threads(self, monkeypatch):
        """Klio's way is to make it in `__init__`; a stop by another thread lost the message."""
        recorded = []
        timer = pickle.loads(pickle.dumps(KlioMetrics().timer("work")))
        monkeypatch.setattr(type(timer), "record", lambda _, time_ns: recorded.append(time_ns))
        barrier = threading.Barrier(2)

        def work(seconds):
            timer.start()
            barrier.wait()
            time.sleep(seconds)
            timer.stop()

        threads = [threading.Thread(target=work, args=[seconds]) for seconds in (0.05, 0.3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(recorded) == 2
        assert recorded[1] - recorded[0] > 0.2e9

    def test_a_step_without_a_job_says_that_it_is_not_bound(self):
        context = pickle.loads(pickle.dumps(KlioContext()))
        assert context == KlioContext()
        assert not context.allow_non_klio_messages
        with pytest.raises(AttributeError, match=r"job_config.*bind_context"):
            context.config.job_config.my_key  # noqa: B018

    def test_timer(self):
        timer = KlioMetrics().timer("t")
        with pytest.raises(RuntimeError, match="not started"):
            timer.stop()
        with pytest.raises(ValueError, match="ns, us, ms, s"):
            KlioMetrics().timer("t", timer_unit="minutes")

    @pytest.mark.parametrize("logger", [True, {}, {"level": "info"}, {"level": "DEBUG"}])
    def test_the_configuration_has_changes_logged(self, logger, caplog):
        context = KlioContext(config={"job_config": {"metrics": {"logger": logger}}})
        with caplog.at_level(logging.DEBUG, logger="klio"):
            context.metrics.counter("songs", transform="Step").inc(2)
            context.metrics.gauge("level", tags={"song": "a"}).set(7)
            context.metrics.timer("work", transform="Step").record(3_000_000)
        logged = [(record.levelname, record.getMessage()) for record in caplog.records]
        level = str((logger if logger is not True else {}).get("level", "debug")).upper()
        assert logged == [
            (level, "[metric] counter Step/songs: 2"),
            (level, "[metric] gauge klio/level: 7 {'song': 'a'}"),
            (level, "[metric] timer Step/work: 3 ms"),
        ]

    @pytest.mark.parametrize(
        ("metrics", "given", "recorded", "logged"),
        [
            ({}, None, 3, None),
            ({"native": {"timer_unit": "us"}}, None, 3_000, None),
            ({"native": {"timer_unit": "microseconds"}}, "nanoseconds", 3_000_000, None),
            ({"native": {"timer_unit": "us"}, "logger": True}, None, 3_000, "3000 us"),
            ({"logger": {"timer_unit": "ns"}}, None, 3, "3000000 ns"),
            ({"logger": {"timer_unit": "seconds"}}, "us", 3_000, "3000 us"),
            ({"shumway": {"timer_unit": "ns"}}, None, 3, None),
        ],
    )
    def test_the_configuration_decides_on_units(self, metrics, given, recorded, logged, caplog):
        """A timer's own unit goes first; the log has one of its own."""
        context = KlioContext(config={"job_config": {"metrics": metrics}})

        def work(_):
            context.metrics.timer("work", transform="Step", timer_unit=given).record(3_000_000)

        pipeline = beam.Pipeline(options=run_options())
        with caplog.at_level(logging.DEBUG, logger="klio"), pipeline:
            pipeline | beam.Create([1]) | beam.Map(work)
        found = pipeline.result.metrics().query(beam.metrics.MetricsFilter().with_namespace("Step"))
        assert [each.committed.sum for each in found["distributions"]] == [recorded]
        lines = [record.getMessage() for record in caplog.records if record.name == "klio"]
        assert lines == ([f"[metric] timer Step/work: {logged}"] if logged else [])

    @pytest.mark.parametrize("client", ["native", "logger"])
    def test_a_unit_that_is_none(self, client):
        config = {"job_config": {"metrics": {client: {"timer_unit": "minutes"}}}}
        with pytest.raises(ValueError, match=f"metrics.{client}: .*'minutes'"):
            KlioContext(config=config)

    def test_a_log_level_that_is_none(self):
        config = {"job_config": {"metrics": {"logger": {"level": "loud"}}}}
        with pytest.raises(ValueError, match="'LOUD'"):
            KlioContext(config=config)


SHARED_LIMITER = ThreadLimiter(1)


class First(beam.DoFn):
    @handle_klio(thread_limiter=SHARED_LIMITER)
    def process(self, item):
        yield b"1"
        yield b"2"


@handle_klio(thread_limiter=SHARED_LIMITER)
def second(ctx, item):
    return item.payload + b"+"


class TestThreadLimit:
    def test_two_fused_steps_share_a_limiter(self):
        """In Klio the first step held the limiter while the second waited for it."""

        def run():
            with beam.Pipeline(options=run_options()) as pipeline:
                messages = pipeline | beam.Create([encoded(str(i)) for i in range(3)])
                got = messages | beam.ParDo(First()) | beam.Map(second)
                got = got | beam.Map(lambda message: payloads([message])[0])
                assert_that(got, equal_to([b"1+", b"2+"] * 3))
            done.set()

        done = threading.Event()
        threading.Thread(target=run, daemon=True).start()
        assert done.wait(30)

    @pytest.mark.parametrize(
        ("count", "limit"),
        [(1, 1), (2, 2), (lambda: 2, 2), (ThreadLimit.DEFAULT, 3), (None, 3)],
    )
    def test_limits(self, count, limit, monkeypatch):
        monkeypatch.setattr("os.cpu_count", lambda: 3)
        running, most = [], []

        class Step(beam.DoFn):
            @handle_klio(max_thread_count=count)
            def process(self, item):
                for _ in range(2):
                    running.append(1)
                    most.append(len(running))
                    time.sleep(0.01)
                    running.pop()
                    yield b""

        threads = [
            threading.Thread(target=lambda: list(Step().process(encoded()))) for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert max(most) == limit
        assert len(most) == 10

    def test_no_limit(self, monkeypatch):
        monkeypatch.setattr("os.cpu_count", lambda: 1)
        all_of_them = threading.Barrier(5)

        @handle_klio(max_thread_count=ThreadLimit.NONE)
        def meet(ctx, item):
            all_of_them.wait(30)
            return b"met"

        met = []
        threads = [
            threading.Thread(target=lambda: met.extend(payloads([meet(encoded())])))
            for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert met == [b"met"] * 5

    def test_each_function_has_a_limit_of_its_own(self):
        limited = handle_klio(max_thread_count=1)

        @limited
        def inner(ctx, item):
            return b"inner"

        @limited
        def outer(ctx, item):
            return payloads([inner(encoded())])[0]

        done = []
        thread = threading.Thread(target=lambda: done.append(outer(encoded())), daemon=True)
        thread.start()
        thread.join(30)
        assert payloads(done) == [b"inner"]

    def test_is_free_after_failures_and_while_suspended(self):
        list(twice_limited(encoded("bad")))
        list(twice_limited(b"undecodable"))
        abandoned = twice_limited(encoded())
        next(abandoned)
        assert len(list(twice_limited(encoded()))) == 2

    def test_copies_share_their_places(self):
        limiter = ThreadLimiter(1)
        copy = pickle.loads(pickle.dumps(limiter))
        with limiter:
            assert not copy.semaphore().acquire(blocking=False)
        with copy:
            pass

    @pytest.mark.parametrize("count", [2, lambda: 2, ThreadLimit.NONE, ThreadLimit.DEFAULT])
    def test_places_are_taken_by_hand_too(self, count, monkeypatch):
        monkeypatch.setattr("os.cpu_count", lambda: 2)
        limiter = ThreadLimiter(max_thread_count=count, name="loaders")
        assert "loaders" in repr(limiter)
        limiter.acquire()
        with limiter:
            if count is not ThreadLimit.NONE:
                assert not limiter.semaphore().acquire(blocking=False)
        limiter.release()
        if count is not ThreadLimit.NONE:
            with pytest.raises(ValueError):
                limiter.release()

    @pytest.mark.parametrize(
        ("options", "error", "said"),
        [
            ({"max_thread_count": 0}, ValueError, ["at least 1", "not 0", "ThreadLimit.NONE"]),
            ({"max_thread_count": -1}, ValueError, ["at least 1", "not -1"]),
            ({"max_thread_count": True}, TypeError, ["whole number", "not True"]),
            ({"max_thread_count": 2.0}, TypeError, ["whole number", "not 2.0"]),
            ({"max_thread_count": "2"}, TypeError, ["whole number", "not '2'", "a function"]),
            (
                {"max_thread_count": ThreadLimiter(2)},
                TypeError,
                ["number", "ThreadLimiter(2"],
            ),
            ({"thread_limiter": "2"}, TypeError, ["ThreadLimiter(2)", "not '2'"]),
            ({"thread_limiter": 2}, TypeError, ["not 2;", "max_thread_count"]),
            ({"thread_limiter": ThreadLimiter}, TypeError, ["ThreadLimiter(2)"]),
            ({"thread_limiter": threading.Semaphore()}, TypeError, ["ThreadLimiter(2)"]),
            (
                {"max_thread_count": 1, "thread_limiter": SHARED_LIMITER},
                ValueError,
                ["max_thread_count or thread_limiter"],
            ),
        ],
    )
    def test_what_can_be_no_limit_is_refused_where_it_is_written(self, options, error, said):
        with pytest.raises(error) as raised:

            @handle_klio(**options)
            def step(ctx, item):
                return None

        assert_names(str(raised.value), *said)

    @pytest.mark.parametrize(
        ("given", "error"), [("2", TypeError), (None, TypeError), (0, ValueError)]
    )
    def test_a_function_that_gives_no_number_drops_no_message(self, given, error):
        @handle_klio(max_thread_count=lambda: given)
        def step(ctx, item):
            return b"out"

        with pytest.raises(error, match=f"step.*its function gives .* not {given!r}"):
            step(encoded())


@handle_klio(max_thread_count=1)
def twice_limited(ctx, item):
    yield item.payload
    if item.element == b"bad":
        raise RuntimeError
    yield item.payload


class TestInBeam:
    def test_tags_and_drops(self):
        with beam.Pipeline(options=run_options()) as pipeline:
            messages = pipeline | beam.Create([encoded("good"), encoded("bad"), b"no message"])
            failing = messages | beam.ParDo(Fails()).with_outputs("drop", main="out")
            upper = messages | beam.ParDo(Upper()).with_outputs("element", "drop", main="out")
            shouted = messages | beam.Map(shout).with_outputs("drop", main="out")
            two = messages | beam.FlatMap(twice).with_outputs("drop", main="out")
            for name, pcoll, expected in [
                ("failing", failing.out, [b"first", b"first", b"second"]),
                ("upper", upper.out, [b"IN", b"IN"]),
                ("element", upper.element, [b"good", b"bad"]),
                ("shouted", shouted.out, [b"INjob"]),
                ("two", two.out, [b"in"] * 3),
            ]:
                got = pcoll | f"{name} payload" >> beam.Map(lambda m: payloads([m])[0])
                assert_that(got, equal_to(expected), label=name)
            for name, pcoll, expected in [
                ("failing drop", failing.drop, [encoded("bad"), b"no message"]),
                ("upper drop", upper.drop, [b"no message"]),
                ("shout drop", shouted.drop, [encoded("bad"), b"no message"]),
                ("two drop", two.drop, [encoded("bad"), b"no message"]),
            ]:
                assert_that(pcoll, equal_to(expected), label=name)

    def test_parameters_that_beam_fills_in(self):
        class Asks(beam.DoFn):
            @handle_klio
            @handle_binary(skip_load=True, skip_dump=True)
            def process(
                self,
                item,
                suffix,
                timestamp=beam.DoFn.TimestampParam,
                window=beam.DoFn.WindowParam,
                letters=None,
            ):
                yield f"{item.payload.decode()}{suffix}{int(timestamp)}{window.end}{letters}"

        class Element(beam.DoFn):
            @handle_klio
            def process(self, timestamp=beam.DoFn.TimestampParam, item=beam.DoFn.ElementParam):
                yield f"{int(timestamp)}{item.payload.decode()}"

        @handle_klio
        def ask(ctx, item, letters, window=beam.DoFn.WindowParam):
            return f"{item.payload.decode()}{letters}{window.end}"

        with beam.Pipeline(options=run_options()) as pipeline:
            letters = AsList(pipeline | "Letters" >> beam.Create(["a"]))
            messages = (
                pipeline
                | beam.Create([TimestampedValue(encoded(), 7)])
                | beam.Map(lambda value: value)
                | beam.WindowInto(FixedWindows(10))
            )
            for name, step, expected in [
                ("pardo", beam.ParDo(Asks(), "!", letters=letters), "in!7Timestamp(10)['a']"),
                ("element", beam.ParDo(Element()), "7in"),
                ("map", beam.Map(ask, letters), "in['a']Timestamp(10)"),
            ]:
                got = (
                    messages
                    | name >> step
                    | f"{name} global" >> beam.WindowInto(beam.window.GlobalWindows())
                    | f"{name} payload" >> beam.Map(lambda m: payloads([m])[0].decode())
                )
                assert_that(got, equal_to([expected]), label=name)

    def test_timestamped_value(self):
        class Step(beam.DoFn):
            @handle_klio
            def process(self, item):
                yield TimestampedValue(b"later", 5)
                yield TaggedOutput("tag", TimestampedValue(b"tagged", 6))

        @beam.typehints.no_annotations
        def when(message, timestamp=beam.DoFn.TimestampParam):
            return payloads([message])[0], int(timestamp)

        with beam.Pipeline(options=run_options()) as pipeline:
            messages = pipeline | beam.Create([encoded()])
            outputs = messages | beam.ParDo(Step()).with_outputs("tag", main="out")
            got = (outputs.out, outputs.tag) | beam.Flatten() | beam.Map(when)
            assert_that(got, equal_to([(b"later", 5), (b"tagged", 6)]))

    def test_annotations_of_the_user(self):
        """They speak of what the user code sees; the elements between steps are bytes."""

        class Annotated(beam.DoFn):
            @handle_klio
            @handle_binary
            def process(self, item: int) -> list[float]:
                yield item.payload

        @handle_klio
        def annotated(ctx: KlioContext, item: dict) -> str:
            return "out"

        with beam.Pipeline(options=run_options("--runtime_type_check")) as pipeline:
            messages = pipeline | beam.Create([encoded(payload=ARRAY)])
            outputs = messages | beam.ParDo(Annotated())
            assert outputs.element_type is bytes
            assert (outputs | beam.Map(annotated)).element_type is bytes
        pipeline = beam.Pipeline(options=run_options())
        with pytest.raises(beam.typehints.TypeCheckError, match="bytes"):
            pipeline | beam.Create(["text"]) | beam.ParDo(Annotated())

    def test_arrays_through_several_steps(self):
        class Double(beam.DoFn):
            @handle_klio
            @handle_binary
            def process(self, item):
                yield 2 * item.payload

        @handle_klio
        @handle_binary(skip_dump=True)
        def total(ctx, item):
            return str(item.payload.sum())

        with beam.Pipeline(options=run_options()) as pipeline:
            messages = pipeline | beam.Create([encoded(payload=ARRAY)])
            got = messages | beam.ParDo(Double()) | beam.Reshuffle() | beam.Map(total)
            assert_that(
                got | "Payload" >> beam.Map(lambda m: payloads([m])[0]), equal_to([b"30.0"])
            )

    def test_on_worker_processes(self):
        """Steps, context and limiter go to other processes by pickle, of a class by value."""
        limiter = ThreadLimiter(1)

        class Local(beam.DoFn):
            @handle_klio(thread_limiter=limiter)
            @handle_binary
            def process(self, item, window=beam.DoFn.WindowParam):
                assert window == GlobalWindow()
                name = f"{self._klio.job.job_name} {self._klio.config['letter']}"
                yield TaggedOutput("name", np.frombuffer(name.encode(), np.uint8))
                yield item.payload

        @handle_klio(thread_limiter=limiter)
        def local(ctx, item):
            return ctx.config["letter"]

        def name_of(message):
            return array_from_bytes(parse_message(message).data.payload).tobytes()

        context = KlioContext(config={"letter": "b"}, job=KlioJob(job_name="bound"))
        options = run_options("--direct_num_workers=2", "--direct_running_mode=multi_processing")
        pipeline = beam.Pipeline(options=options)
        messages = pipeline | beam.Create([encoded(payload=ARRAY)] * 4)
        outputs = messages | beam.ParDo(Local()).with_outputs("name", "drop", main="out")
        assert_that(outputs.name | beam.Map(name_of), equal_to([b"bound b"] * 4))
        letters = outputs.out | beam.Map(local)
        assert_that(
            letters | beam.Map(lambda m: parse_message(m).data.payload),
            equal_to([b"b"] * 4),
            label="letters",
        )
        bind_context(pipeline, context)
        pipeline.run().wait_until_finish()
