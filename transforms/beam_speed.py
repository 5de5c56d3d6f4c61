"""Graphs of Beam, built and run in less time, with the same results.

To build the graph of a job, and to run it on a short recording, took nearly a second of CPU. Two
thirds of that Beam spent on questions that it asks again and again: it made a parser of options for
each of 1,100 views of them, and it looked for state and timers in the signature of each method of
each `DoFn`, eight times, though nearly all are of a few classes. Here the first answer is kept.
"""

import types
import weakref
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms import core, userstate

Arguments = tuple[list[str], list[Any]]
Specs = tuple[set[userstate.StateSpec], set[userstate.TimerSpec]]
_plain_view_as = PipelineOptions.view_as
_plain_arguments = core.get_function_args_defaults
_plain_specs = userstate.get_dofn_specs


def speed_up_beam() -> None:
    """Have Beam, in this process, keep its answers."""
    PipelineOptions.view_as = kept_view
    core.get_function_args_defaults = kept_arguments
    userstate.get_dofn_specs = kept_specs


_views: weakref.WeakKeyDictionary[Any, dict[type, Any]] = weakref.WeakKeyDictionary()


def kept_view(options: Any, kind: type) -> Any:
    """A view of options, as `PipelineOptions.view_as`: the one that there is, if there is one.

    A view holds no values of its own but those of the options, so that all views are equal.
    """
    views = _views.setdefault(options, {})
    view = views.get(kind)
    # Copies and what was unpickled have values of their own.
    if view is None or view._all_options is not options._all_options:
        view = views[kind] = _plain_view_as(options, kind)
    return view


_arguments: weakref.WeakKeyDictionary[types.FunctionType, Arguments] = weakref.WeakKeyDictionary()


def kept_arguments(function: Any) -> Arguments:
    """Arguments and their defaults, as `core.get_function_args_defaults`: found out once.

    They are kept for methods, by the function of the class: a method is another for each object.
    """
    plain = getattr(function, "__func__", None)
    if not isinstance(plain, types.FunctionType):
        return _plain_arguments(function)
    kept = _arguments.get(plain)
    if kept is None:
        kept = _arguments[plain] = _plain_arguments(function)
    names, defaults = kept
    return [*names], [*defaults]


_specs: weakref.WeakKeyDictionary[type, Specs] = weakref.WeakKeyDictionary()


def kept_specs(dofn: Any) -> Specs:
    """Specs of state and timers, as `userstate.get_dofn_specs`: found out once for a class.

    A `DoFn` that holds a method of its own, such as that of a bound method, is looked at itself.
    """
    if any(isinstance(held, types.MethodType) for held in vars(dofn).values()):
        return _plain_specs(dofn)
    kept = _specs.get(type(dofn))
    if kept is None:
        kept = _specs[type(dofn)] = _plain_specs(dofn)
    states, timers = kept
    return {*states}, {*timers}
