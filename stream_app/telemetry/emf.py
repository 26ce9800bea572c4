"""Metrics as lines of a log: CloudWatch's embedded metric format, which Lambda and the agent turn into metrics.

The format is AWS's "Specification: Embedded metric format": a JSON object whose `_aws` names which of its members
are metrics, and by which of them they are told apart.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import NamedTuple

# As many as one document may name.
MOST_METRICS = 100
MOST_DIMENSIONS = 30


class Metric(NamedTuple):
    """A value and its unit, as CloudWatch calls units ("Count", "Seconds", "Milliseconds", "Bytes", "None")."""

    value: float
    unit: str = "Count"


def line(
    namespace: str,
    dimensions: Mapping[str, str],
    metrics: Mapping[str, Metric],
    *,
    at_ms: int,
    properties: Mapping[str, str] | None = None,
) -> str:
    """One line, without its end, of metrics that share their dimensions; `at_ms` is ms since the epoch.

    `properties` are members that are kept in the log and are neither. A value that is no finite number is left out:
    CloudWatch refuses it. Raises ValueError when there is more than a document may hold, or a name stands twice.
    """
    told = {name: metric for name, metric in metrics.items() if math.isfinite(metric.value)}
    if len(told) > MOST_METRICS or len(dimensions) > MOST_DIMENSIONS:
        raise ValueError(f"{len(told)} metrics by {len(dimensions)} dimensions are too many for one line")
    members = [*dimensions, *told, *(properties or {})]
    if len(set(members)) != len(members) or "_aws" in members:
        raise ValueError("a metric, dimension or property has the name of another")
    directive = {
        "Namespace": namespace,
        "Dimensions": [list(dimensions)],
        "Metrics": [{"Name": name, "Unit": metric.unit} for name, metric in told.items()],
    }
    document = {
        "_aws": {"Timestamp": at_ms, "CloudWatchMetrics": [directive]},
        **(properties or {}),
        **dimensions,
        **{name: metric.value for name, metric in told.items()},
    }
    return json.dumps(document)
