"""Lines in the CloudWatch embedded metric format conform to its specification."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.telemetry.emf import MAX_METRICS, Metric, line

NAMES = st.text("abcdefgh", min_size=1, max_size=4)
METRICS = st.dictionaries(
    NAMES.map(lambda name: f"m{name}"),
    st.builds(Metric, st.integers(-(10**12), 10**12) | st.floats(), st.sampled_from(["Count", "Seconds"])),
    max_size=8,
)
DIMENSIONS = st.dictionaries(NAMES.map(lambda name: f"d{name}"), st.text(max_size=20), max_size=4)


@given(
    METRICS, DIMENSIONS, DIMENSIONS.map(lambda names: {f"p{name}": value for name, value in names.items()})
)
def test_a_line_conforms_to_the_specification(
    metrics: dict[str, Metric], dimensions: dict[str, str], properties: dict[str, str]
) -> None:
    text = line("air", dimensions, metrics, at_ms=1_480_550_400_123, properties=properties)
    assert "\n" not in text
    document = json.loads(text)
    meta = document.pop("_aws")
    assert set(meta) == {"Timestamp", "CloudWatchMetrics"}
    assert meta["Timestamp"] == 1_480_550_400_123
    [directive] = meta["CloudWatchMetrics"]
    assert set(directive) == {"Namespace", "Dimensions", "Metrics"}
    assert directive["Dimensions"] == [list(dimensions)]
    finite_metrics = {name: metric for name, metric in metrics.items() if math.isfinite(metric.value)}
    assert directive["Metrics"] == [
        {"Name": name, "Unit": metric.unit} for name, metric in finite_metrics.items()
    ]
    # Every target member is in the root node, dimensions as strings and metrics as numbers.
    assert document == {
        **properties,
        **dimensions,
        **{name: metric.value for name, metric in finite_metrics.items()},
    }


@pytest.mark.parametrize(
    ("dimensions", "metrics", "properties"),
    [
        ({"a": "x"}, {"a": Metric(1)}, {}),
        ({"a": "x"}, {"b": Metric(1)}, {"b": "y"}),
        ({"_aws": "x"}, {}, {}),
        ({}, {f"m{n}": Metric(n) for n in range(MAX_METRICS + 1)}, {}),
        ({f"d{n}": "x" for n in range(31)}, {}, {}),
    ],
)
def test_invalid_metrics_and_dimensions_are_rejected(
    dimensions: dict[str, str], metrics: dict[str, Metric], properties: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match=r"same name as another|too many"):
        line("air", dimensions, metrics, at_ms=0, properties=properties)
