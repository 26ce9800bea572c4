"""Pacing: evenly spaced, never early, and without bursts after a stall."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.errors import ConfigError
from stream_app.ingest.pacing import BURST, Pacer, parse_speed

START = datetime(2016, 12, 1, tzinfo=UTC)
rates = st.floats(0.1, 1e5)
speeds = st.floats(0.1, 1e7)
stalls = st.lists(st.floats(0, 5), min_size=1, max_size=60)
ages = st.lists(st.floats(0, 1e6), min_size=1, max_size=60).map(sorted)


def left(pacer: Pacer, times: list[datetime | None], stalls: list[float]) -> list[float]:
    """Return the times of sending, with a stall after each record."""
    now, moments = 1_000.0, []
    for time, stall in zip(times, stalls, strict=True):
        now += pacer.wait(now, time)
        moments.append(now - 1_000.0)
        now += stall
    return moments


@given(rate=rates, count=st.integers(1, 200))
def test_records_are_evenly_spaced(rate: float, count: int) -> None:
    moments = left(Pacer(rate), [None] * count, [0.0] * count)
    assert moments == pytest.approx([n / rate for n in range(count)])


@given(rate=rates, stalls=stalls)
def test_a_stall_is_not_followed_by_a_burst(rate: float, stalls: list[float]) -> None:
    moments = left(Pacer(rate), [None] * len(stalls), stalls)
    for first, began in enumerate(moments):
        for last, ended in enumerate(moments[first:], first):
            assert last - first <= (ended - began + BURST) * rate + 1e-3


@given(speed=speeds, ages=ages)
def test_the_speed_limits_data_time(speed: float, ages: list[float]) -> None:
    times: list[datetime | None] = [START + timedelta(seconds=age) for age in ages]
    moments = left(Pacer(speed=speed), times, [0.0] * len(ages))
    assert moments == pytest.approx([(age - ages[0]) / speed for age in ages], abs=1e-5)


@given(rate=rates, speed=speeds, ages=ages)
def test_rate_and_speed_are_both_limits(rate: float, speed: float, ages: list[float]) -> None:
    times: list[datetime | None] = [START + timedelta(seconds=age) for age in ages]
    moments = left(Pacer(rate, speed), times, [0.0] * len(ages))
    for number, (moment, age) in enumerate(zip(moments, ages, strict=True)):
        assert moment >= number / rate - 1e-5
        assert moment >= (age - ages[0]) / speed - 1e-5


@given(stalls=stalls)
def test_unlimited_speed_has_no_wait(stalls: list[float]) -> None:
    pacer, now = Pacer(), 0.0
    for stall in stalls:
        assert pacer.wait(now, START) == 0
        now += stall


@pytest.mark.parametrize(
    ("rate", "speed"), [(0, 1), (-1, 1), (math.inf, 1), (math.nan, 1), (1, 0), (1, math.nan)]
)
def test_an_invalid_pace_is_rejected(rate: float, speed: float) -> None:
    with pytest.raises(ConfigError):
        Pacer(rate, speed)


@given(speed=speeds)
def test_speed_is_parsed(speed: float) -> None:
    assert parse_speed(str(speed)) == speed
    assert parse_speed(" Max ") == math.inf


@pytest.mark.parametrize("text", ["", "fast", "0", "-1", "nan", "3600x"])
def test_an_invalid_speed_is_rejected(text: str) -> None:
    with pytest.raises(ConfigError, match="max"):
        parse_speed(text)
