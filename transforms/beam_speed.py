"""Graphs of Beam, built and run in less time, with the same results.

To build the graph of a job, and to run it on a short recording, took nearly a second of CPU. Two
thirds of that Beam spent on two questions that it asks again and again: it made a parser of
options for each of 1,100 views of them, and it looked for state and timers in the signature of
each method of each `DoFn`, eight times. Here the first answer is kept.
"""

import functools
import types
import weakref
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms import userstate

Specs = tuple[set[Any], set[Any]]
_plain_view_as = PipelineOptions.view_as
_plain_dofn_specs = userstate.get_dofn_specs


def speed_up_beam() -> None:
    """Have Beam, in this process, keep its answers."""
    PipelineOptions.view_as = kept_view
    userstate.get_dofn_specs = kept_dofn_specs


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


_specs: weakref.WeakKeyDictionary[type, Specs] = weakref.WeakKeyDictionary()


def kept_dofn_specs(dofn: Any) -> Specs:
    """State and timers of a `DoFn`, as `userstate.get_dofn_specs`: found out once for a class.

    Where they may be those of an object, as of `beam.Map`, Beam finds them out each time.
    """
    kind = type(dofn)
    if _has_signatures_of_its_own(dofn):
        return _plain_dofn_specs(dofn)
    if kind not in _specs:
        _specs[kind] = _plain_dofn_specs(dofn)
    states, timers = _specs[kind]
    return {*states}, {*timers}


def _has_signatures_of_its_own(dofn: Any) -> bool:
    """Some of the methods that Beam inspects, or what it is told of them, is not of the class."""
    kind: Any = type(dofn)
    return _tells_signatures(kind) or any(
        isinstance(value, types.MethodType) or name.startswith("_inspect_")
        for name, value in vars(dofn).items()
    )


@functools.lru_cache(maxsize=256)
def _tells_signatures(kind: Any) -> bool:
    return any(name.startswith("_inspect_") for name in dir(kind))
