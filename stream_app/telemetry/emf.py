"""Metrics as log lines in the CloudWatch embedded metric format, which Lambda and the agent convert to metrics.

See "Specification: Embedded metric format" in the CloudWatch documentation: a JSON object whose member `_aws` lists
which of its members are metrics and which are dimensions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import NamedTuple

# Limits of one document.
MAX_METRICS = 100
MAX_DIMENSIONS = 30


class Metric(NamedTuple):
    """A value and its CloudWatch unit ("Count", "Seconds", "Milliseconds", "Bytes", "None")."""

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
    """Return a line, without a line break, of metrics that share their dimensions; `at_ms` is in ms since the epoch.

    `properties` are further members that are kept in the log only. Values that are not finite are omitted, because
    CloudWatch rejects them. Raises ValueError if a limit is exceeded or a name occurs twice.
    """
    finite = {name: metric for name, metric in metrics.items() if math.isfinite(metric.value)}
    if len(finite) > MAX_METRICS or len(dimensions) > MAX_DIMENSIONS:
        raise ValueError(
            f"too many metrics ({len(finite)}) or dimensions ({len(dimensions)}) for one line "
            f"(at most {MAX_METRICS} and {MAX_DIMENSIONS})"
        )
    members = [*dimensions, *finite, *(properties or {})]
    if len(set(members)) != len(members) or "_aws" in members:
        raise ValueError("a metric, dimension or property has the same name as another")
    directive = {
        "Namespace": namespace,
        "Dimensions": [list(dimensions)],
        "Metrics": [{"Name": name, "Unit": metric.unit} for name, metric in finite.items()],
    }
    document = {
        "_aws": {"Timestamp": at_ms, "CloudWatchMetrics": [directive]},
        **(properties or {}),
        **dimensions,
        **{name: metric.value for name, metric in finite.items()},
    }
    return json.dumps(document)
