"""Beam's counters and distributions, by step and name."""

from typing import Any


def metrics_by_step(result: Any) -> dict[str, dict[str, Any]]:
    """Beam's counters and distributions by step and name."""
    metrics: dict[str, dict[str, Any]] = {}
    query = result.metrics().query()
    for counter in query["counters"]:
        step = metrics.setdefault(counter.key.metric.namespace, {})
        step[counter.key.metric.name] = step.get(counter.key.metric.name, 0) + _told(counter)
    for each in query["distributions"]:
        value = _told(each)
        step = metrics.setdefault(each.key.metric.namespace, {})
        name = each.key.metric.name
        step[name] = {"sum": value.sum, "count": value.count, "min": value.min, "max": value.max}
    return metrics


def _told(metric: Any) -> Any:
    # Some runners behind a job server know no committed values.
    return metric.attempted if metric.committed is None else metric.committed


def sum_of(first: Any, second: Any) -> Any:
    """The sum of two counters, or what two distributions are together."""
    if not isinstance(first, dict):
        return first + second
    return {
        "sum": first["sum"] + second["sum"],
        "count": first["count"] + second["count"],
        "min": min(first["min"], second["min"]),
        "max": max(first["max"], second["max"]),
    }
