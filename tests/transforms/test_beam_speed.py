"""What is kept of Beam's answers is what Beam would answer."""

import copy
import pickle
import types
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.coders import BytesCoder
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions, TypeOptions
from apache_beam.pipeline import PipelineVisitor
from apache_beam.transforms import core, userstate
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer

from beamsplitter.pipelines.job.job_config import parse_job
from beamsplitter.pipelines.run import build
from beamsplitter.transforms import beam_speed
from beamsplitter.transforms.beam_speed import kept_arguments, kept_specs

STATE = ReadModifyWriteStateSpec("state", BytesCoder())
TIMER = TimerSpec("timer", beam.TimeDomain.WATERMARK)
STATE_OF_KEY = beam.DoFn.StateParam(STATE)
TIMER_OF_KEY = beam.DoFn.TimerParam(TIMER)


class Plain(beam.DoFn):
    def process(self, element: Any) -> None:
        pass


class Stateful(Plain):
    def process(self, element: Any, state: Any = STATE_OF_KEY) -> None:
        pass


class Timed(Stateful):
    def finish(self, timer: Any = TIMER_OF_KEY) -> None:
        pass

    @on_timer(TIMER)
    def expire(self) -> None:
        pass


class Holder:
    """Has methods that a `DoFn` may hold."""

    def plain(self, element: Any) -> Any:
        return element

    def stateful(self, element: Any, state: Any = STATE_OF_KEY) -> Any:
        return element


def holding(method: Any) -> beam.DoFn:
    dofn = Plain()
    dofn.process = method
    return dofn


def told(function: Any) -> beam.DoFn:
    """The `DoFn` that Beam makes of a function of more than an element."""
    return beam.FlatMap(function).dofn


@pytest.mark.parametrize(
    ("make", "has_state", "has_timer"),
    [
        (Plain, False, False),
        (Stateful, True, False),
        (Timed, True, True),
        (lambda: told(Holder().plain), False, False),
        (lambda: told(Holder().stateful), True, False),
        (lambda: holding(Holder().plain), False, False),
        (lambda: holding(Holder().stateful), True, False),
    ],
)
def test_state_and_timers_are_those_of_each_dofn(
    make: Any, has_state: bool, has_timer: bool
) -> None:
    expected = ({STATE} if has_state else set(), {TIMER} if has_timer else set())
    for _ in range(2):
        dofn = make()
        assert userstate.get_dofn_specs(dofn) == expected
        assert_told_as_by_beam(dofn)


def assert_told_as_by_beam(dofn: beam.DoFn) -> None:
    """Of all methods; what a caller does with an answer is its own affair."""
    assert core.get_function_args_defaults is kept_arguments
    assert userstate.get_dofn_specs is kept_specs
    for _ in range(2):
        specs = kept_specs(dofn)
        assert specs == beam_speed._plain_specs(dofn)
        for each in specs:
            each.clear()
    for name in dir(dofn):
        method = getattr(dofn, name)
        if isinstance(method, types.MethodType):
            expected = beam_speed._plain_arguments(method)
            for _ in range(2):
                names, defaults = kept_arguments(method)
                assert (names, defaults) == expected
                names.append("another")
                defaults.clear()


def test_two_parameters_of_one_kind_are_refused_each_time() -> None:
    class Doubled(beam.DoFn):
        def process(
            self,
            element: Any,
            first: Any = STATE_OF_KEY,
            second: Any = STATE_OF_KEY,
        ) -> None:
            pass

    for _ in range(2):
        with pytest.raises(ValueError, match="duplicate"):
            userstate.get_dofn_specs(Doubled())


def test_a_graph_of_a_job_is_told_what_beam_would_tell(tmp_path: Path) -> None:
    job = parse_job(
        {
            "job_name": "job",
            "pipeline_options": {"streaming": False},
            "job_config": {
                "events": {"inputs": [{"type": "folder", "location": str(tmp_path)}]},
                "data": {"outputs": [{"type": "file", "location": str(tmp_path / "out")}]},
            },
        },
        source="test",
    )
    pipeline = beam.Pipeline(options=PipelineOptions([]))
    build(job, pipeline | beam.Create([b""]), progress_path="progress")
    dofns = []

    class Visitor(PipelineVisitor):
        def visit_transform(self, node: Any) -> None:
            if isinstance(node.transform, beam.ParDo):
                dofns.append(node.transform.dofn)

    pipeline.visit(Visitor())
    assert len(dofns) > 30
    for dofn in dofns:
        assert_told_as_by_beam(dofn)


def test_views_share_their_values_and_copies_do_not() -> None:
    options = PipelineOptions([], job_name="first", streaming=True)
    view = options.view_as(StandardOptions)
    assert options.view_as(StandardOptions) is view and view.streaming
    view.streaming = False
    assert not options.view_as(TypeOptions).view_as(StandardOptions).streaming
    for copied in (copy.deepcopy(options), pickle.loads(pickle.dumps(options))):
        copied.view_as(StandardOptions).streaming = True
        assert copied.view_as(StandardOptions).streaming
        assert not options.view_as(StandardOptions).streaming
    other = PipelineOptions(["--streaming"])
    assert other.view_as(StandardOptions).streaming and not view.streaming
