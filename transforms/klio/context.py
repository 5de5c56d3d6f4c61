"""The context of a running job: its configuration, its name, a logger and metrics.

A step decorated with `handle_klio` finds it at `self._klio`, or as the first argument if the step
is a function. Unbound steps, as in a plain test, see an empty one: no configuration, job "job".
Whoever builds the pipeline binds the job's context before it runs:

    context = KlioContext(config=config, job=KlioJob(job_name="my-job"))
    bind_context(pipeline, context)             # every step of the graph
    bind_context(MyDoFn(), context)             # or a single one
    beam.Map(bind_context(my_function, context))

The context travels to the workers inside the pickled step. Nothing is global and nothing has to
happen before an import.
"""

import contextlib
import dataclasses
import functools
import inspect
import logging
import threading
import time
import types
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar

import apache_beam as beam
from apache_beam.metrics.metric import Metrics
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor

from .message import KlioJob

_NANOSECONDS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
_LONG_UNITS = {"nanoseconds": "ns", "microseconds": "us", "milliseconds": "ms", "seconds": "s"}

Bindable = TypeVar("Bindable")


def _short_unit(unit: Any) -> str:
    """A unit of time by its short name: `ns`, `us`, `ms` or `s`.

    Raises
    ------
    ValueError
        it is no such unit.
    """
    short = _LONG_UNITS.get(unit, unit)
    if short not in _NANOSECONDS:
        raise ValueError(f"timer_unit is one of {', '.join(_NANOSECONDS)}, not {unit!r}.")
    return str(short)


class KlioTimer:
    """Measures wall time into a Beam distribution.

    Use it in a `with` block, by `start` and `stop`, or `record` a time measured elsewhere. Threads
    may share one: each measures its own time.

    Parameters
    ----------
    unit
        of the whole numbers in the distribution: `ns`, `us`, `ms`, `s`, or their full names.
    logged
        told of each time, in nanoseconds, too.
    """

    def __init__(
        self,
        distribution: Any,
        unit: str = "ms",
        logged: Callable[[int], None] | None = None,
    ) -> None:
        self._distribution = distribution
        self._unit = _short_unit(unit)
        self._logged = logged
        self._began: dict[int, int] = {}  # by thread

    def start(self) -> None:
        self._began[threading.get_ident()] = time.perf_counter_ns()

    def stop(self) -> None:
        """Records the time since `start`."""
        began = self._began.pop(threading.get_ident(), None)
        if began is None:
            raise RuntimeError("This timer was not started.")
        self.record(time.perf_counter_ns() - began)

    def record(self, nanoseconds: int) -> None:
        self._distribution.update(round(nanoseconds / _NANOSECONDS[self._unit]))
        if self._logged is not None:
            self._logged(nanoseconds)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


@dataclasses.dataclass(frozen=True)
class _LoggedMetric:
    """A metric of Beam's whose every change is logged, too."""

    metric: Any
    log_level: int
    tags: Mapping[str, Any] | None = None

    def inc(self, n: int = 1) -> None:
        self.metric.inc(n)
        self.log("counter", n)

    def dec(self, n: int = 1) -> None:
        self.metric.dec(n)
        self.log("counter", -n)

    def set(self, value: int) -> None:
        self.metric.set(value)
        self.log("gauge", value)

    def log(self, kind: str, value: object) -> None:
        name = self.metric.metric_name
        tags = f" {dict(self.tags)}" if self.tags else ""
        logging.getLogger("klio").log(
            self.log_level, "[metric] %s %s/%s: %s%s", kind, name.namespace, name.name, value, tags
        )


@dataclasses.dataclass(frozen=True)
class KlioMetrics:
    """Beam's own metrics by Klio's names; `transform` is Beam's namespace.

    Beam's have no tags: those that are given stand in the log's lines only, as in Klio.

    Parameters
    ----------
    default_transform
        the namespace of metrics that name none.
    log_level
        log each change at this level, to the logger "klio", too.
    timer_unit
        of timers that name none: `ns`, `us`, `ms`, `s`, or their full names.
    log_timer_unit
        of such timers in the log; default `timer_unit`.
    step_timer_unit
        of the time that decorated steps take themselves; default `timer_unit`.
    """

    default_transform: str = "klio"
    log_level: int | None = None
    timer_unit: str = "ms"
    log_timer_unit: str | None = None
    step_timer_unit: str | None = None

    @classmethod
    def of_config(cls, config: Any) -> "KlioMetrics":
        """As `job_config.metrics` of a configuration says.

        `native: {timer_unit: s}`; `logger: {level: debug, timer_unit: ns}`, or `true` or `false`;
        `timer_unit: s`, of the time that steps take.

        Raises
        ------
        ValueError
            there is no such log level, or unit of time.
        """
        metrics = _get(_get(config, "job_config"), "metrics")
        native, logger = _get(metrics, "native"), _get(metrics, "logger")
        unit = cls._unit(native, "native") or cls.timer_unit
        of_steps = cls._unit(metrics)
        if logger is None or logger is False:
            return cls(timer_unit=unit, step_timer_unit=of_steps)
        level = str(_get(logger, "level") or "debug").upper()
        if level not in logging.getLevelNamesMapping():
            raise ValueError(f"job_config.metrics.logger.level: there is no log level {level!r}.")
        return cls(
            log_level=logging.getLevelNamesMapping()[level],
            timer_unit=unit,
            log_timer_unit=cls._unit(logger, "logger"),
            step_timer_unit=of_steps,
        )

    @staticmethod
    def _unit(client: Any, *names: str) -> str | None:
        unit = _get(client, "timer_unit")
        try:
            return None if unit is None else _short_unit(unit)
        except ValueError as error:
            raise ValueError(f"{'.'.join(('job_config.metrics', *names))}: {error}") from error

    def counter(
        self, name: str, transform: str | None = None, tags: Mapping[str, Any] | None = None
    ) -> Any:
        """A counter with `inc(n=1)` and `dec(n=1)`."""
        return self._logged(Metrics.counter(transform or self.default_transform, name), tags)

    def gauge(
        self, name: str, transform: str | None = None, tags: Mapping[str, Any] | None = None
    ) -> Any:
        """A gauge with `set(value)`, a whole number."""
        return self._logged(Metrics.gauge(transform or self.default_transform, name), tags)

    def timer(
        self,
        name: str,
        transform: str | None = None,
        timer_unit: str | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> KlioTimer:
        """A new timer, in whole `ns`, `us`, `ms` or `s`; without a unit, in that of the job."""
        distribution = Metrics.distribution(transform or self.default_transform, name)
        unit = _short_unit(timer_unit or self.timer_unit)
        if self.log_level is None:
            return KlioTimer(distribution, unit)
        metric = _LoggedMetric(distribution, self.log_level, tags)
        shown = _short_unit(timer_unit or self.log_timer_unit or unit)

        def log(nanoseconds: int) -> None:
            metric.log("timer", f"{round(nanoseconds / _NANOSECONDS[shown])} {shown}")

        return KlioTimer(distribution, unit, log)

    def _logged(self, metric: Any, tags: Mapping[str, Any] | None) -> Any:
        return metric if self.log_level is None else _LoggedMetric(metric, self.log_level, tags)


class NoConfig:
    """The configuration of steps that were not bound to a job: it has nothing."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"This step has no configuration, so no {name}: bind it, by "
            "bind_context(pipeline, KlioContext(config=job)), or a composite before it is applied."
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NoConfig)

    def __hash__(self) -> int:
        return hash(NoConfig)


@dataclasses.dataclass(frozen=True)
class KlioContext:
    """What a step knows about the job it runs in.

    Parameters
    ----------
    config
        the job's configuration: a mapping or a pydantic model. It must pickle.
    job
        the job's name (`job.job_name`) and project, as they stand in messages.
    logger
        the job's logger.
    metrics
        counters, gauges and timers; by default as the configuration says.
    """

    config: Any = dataclasses.field(default_factory=NoConfig)
    job: KlioJob = dataclasses.field(default_factory=lambda: KlioJob(job_name="job"))
    logger: logging.Logger = dataclasses.field(default_factory=lambda: logging.getLogger("klio"))
    metrics: KlioMetrics = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.metrics is None:
            object.__setattr__(self, "metrics", KlioMetrics.of_config(self.config))

    @property
    def allow_non_klio_messages(self) -> bool:
        """`job_config.allow_non_klio_messages` of the configuration, False if it has none."""
        job_config = _get(self.config, "job_config")
        return bool(_get(job_config, "allow_non_klio_messages"))


def _get(config: Any, name: str) -> Any:
    if isinstance(config, Mapping):
        return config.get(name)
    return getattr(config, name, None)


@functools.cache
def default_context() -> KlioContext:
    """The context of steps that were not bound to any."""
    return KlioContext()


def context_of(step: Any) -> KlioContext:
    """The context that `step`, an object with decorated methods, is bound to, or the default."""
    context: KlioContext | None = getattr(step, "_klio", None)
    return default_context() if context is None else context


def bind_context(target: Bindable, context: KlioContext) -> Bindable:
    """Gives decorated steps their context.

    Parameters
    ----------
    target
        a DoFn or PTransform with decorated methods (bound in place), a decorated function
        (a bound one is returned), or a Pipeline (each DoFn in it that is not bound yet, and
        each function given to Map and its like; one called inside a lambda is bound by hand).
    context
        what the steps shall see.

    Returns
    -------
    `target`, or the bound function.

    Raises
    ------
    TypeError
        nothing in `target` is decorated.
    """
    if isinstance(target, beam.Pipeline):
        target.visit(_Binder(context))
    elif _is_decorated_function(target):
        return _bound(target, context)
    elif _has_decorated_methods(target):
        vars(target)["_klio"] = context
    else:
        raise TypeError(f"{target!r} has no method decorated with handle_klio or its parts.")
    return target


class _Binder(PipelineVisitor):
    def __init__(self, context: KlioContext) -> None:
        self._context = context

    def visit_transform(self, transform_node: AppliedPTransform) -> None:
        dofn = getattr(transform_node.transform, "fn", None)
        if isinstance(dofn, beam.DoFn):
            _bind_dofn(dofn, self._context)


def _bind_dofn(dofn: beam.DoFn, context: KlioContext) -> None:
    """Binds the DoFn and what it wraps: other DoFns, and the functions of Map and FlatMap."""
    if _has_decorated_methods(dofn) and context_of(dofn) == default_context():
        bind_context(dofn, context)
    for name, value in list(vars(dofn).items()):
        if isinstance(value, beam.DoFn):
            _bind_dofn(value, context)
        elif _is_unbound_function(value):
            setattr(dofn, name, _bound(value, context))
        elif inspect.isfunction(value) and not hasattr(value, "_klio_unbound"):
            setattr(dofn, name, _with_bound_closure(value, context))


def _with_bound_closure(function: Any, context: KlioContext) -> Any:
    """`function`, or a copy that calls bound functions: beam.Map hides them in a lambda."""

    def bind_cell(cell: types.CellType) -> types.CellType:
        with contextlib.suppress(ValueError):  # an empty cell
            if _is_unbound_function(cell.cell_contents):
                return types.CellType(_bound(cell.cell_contents, context))
        return cell

    old = function.__closure__ or ()
    new = tuple(bind_cell(cell) for cell in old)
    if all(a is b for a, b in zip(old, new, strict=True)):
        return function
    copy = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, new
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    vars(copy).update(vars(function))
    return copy


def _bound(function: Any, context: KlioContext) -> Any:
    unbound = getattr(function, "_klio_unbound", function)

    @functools.wraps(unbound)
    def bound(*args: Any, **kwargs: Any) -> Any:
        return unbound(*args, klio_context=context, **kwargs)

    vars(bound)["_klio_unbound"] = unbound
    return bound


def _is_decorated_function(value: Any) -> bool:
    return getattr(value, "_klio_decorated", None) == "function"


def _is_unbound_function(value: Any) -> bool:
    return _is_decorated_function(value) and not hasattr(value, "_klio_unbound")


def _has_decorated_methods(value: Any) -> bool:
    cls = type(value)
    return any(
        getattr(getattr(cls, name, None), "_klio_decorated", None) == "method" for name in dir(cls)
    )
