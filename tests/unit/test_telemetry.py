"""Latency histograms, log lines and the summary."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from stream_app.model.record import Code
from stream_app.telemetry import log
from stream_app.telemetry.histogram import Histogram
from stream_app.telemetry.summary import Summary, by_code

_values = st.lists(st.floats(1, 1e9), min_size=1, max_size=60)


@given(_values, st.floats(0, 1))
def test_a_percentile_is_exact_to_two_percent(values: list[float], share: float) -> None:
    histogram = Histogram()
    histogram.add(values)
    found = histogram.percentile(share)
    exact = float(np.quantile(values, share, method="inverted_cdf"))
    assert found == pytest.approx(exact, rel=0.0201)


@given(st.lists(_values, max_size=4))
def test_merging_adds_the_counts(parts: list[list[float]]) -> None:
    merged, whole = Histogram(), Histogram()
    for part in parts:
        one = Histogram()
        one.add(part)
        merged.merge(one.counts)
        whole.add(part)
    assert merged.counts == whole.counts == Histogram(whole.counts).counts
    assert sum(whole.counts.values()) == sum(len(part) for part in parts)


@given(st.lists(st.floats(max_value=1, allow_infinity=False, allow_nan=False), min_size=1))
def test_less_than_a_millisecond_counts_as_one(values: list[float]) -> None:
    histogram = Histogram()
    histogram.add(values)
    assert histogram.percentile(1.0) == 1.0


def test_an_empty_histogram_has_no_percentile() -> None:
    assert Histogram().percentile(0.5) is None


def test_a_summary_serializes_to_json() -> None:
    summary = Summary("s", 3, 1, 1, {"UNDECODABLE": 1}, 0, None, 1.23456, {7: 2})
    line = json.loads(json.dumps(summary.to_json()))
    assert line["failed"] == {"UNDECODABLE": 1}
    assert line["records"] == line["passed"] + line["repeated"] + sum(line["failed"].values())
    assert (line["latency"], line["busy_ms"], line["behind_ms"]) == ({"7": 2}, 1.235, None)


def test_codes_are_counted_by_name_in_sorted_order() -> None:
    counts = by_code(Counter([Code.TOO_LARGE, Code.FIELD_MISSING, Code.TOO_LARGE]))
    assert list(counts.items()) == [("FIELD_MISSING", 1), ("TOO_LARGE", 2)]


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    yield stream
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_a_log_line_is_one_json_object_with_time_level_and_shard(lines: io.StringIO) -> None:
    log.configure("INFO", lines)
    log.bind_shard("shard-1")
    log.get().info("segment", records=5, text="two\nlines")
    log.get().debug("not said")
    (line,) = lines.getvalue().splitlines()
    said = json.loads(line)
    assert said.pop("ts").endswith("Z")
    assert said == {
        "event": "segment",
        "records": 5,
        "text": "two\nlines",
        "level": "info",
        "shard": "shard-1",
    }


def test_an_exception_is_part_of_its_line(lines: io.StringIO) -> None:
    log.configure("debug", lines)
    try:
        raise ValueError("broken")
    except ValueError:
        log.get().exception("stopped")
    (line,) = lines.getvalue().splitlines()
    assert "ValueError: broken" in json.loads(line)["exception"]
