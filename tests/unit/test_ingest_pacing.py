"""Laws of pace: even, never early, and no flood after a slow spell."""

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
    """When each record leaves, with a device that waits as told and is held up after each by a stall."""
    now, moments = 1_000.0, []
    for time, stall in zip(times, stalls, strict=True):
        now += pacer.wait(now, time)
        moments.append(now - 1_000.0)
        now += stall
    return moments


@given(rate=rates, count=st.integers(1, 200))
def test_records_leave_evenly(rate: float, count: int) -> None:
    moments = left(Pacer(rate), [None] * count, [0.0] * count)
    assert moments == pytest.approx([n / rate for n in range(count)])


@given(rate=rates, stalls=stalls)
def test_no_stall_is_followed_by_a_flood(rate: float, stalls: list[float]) -> None:
    moments = left(Pacer(rate), [None] * len(stalls), stalls)
    for first, began in enumerate(moments):
        for last, ended in enumerate(moments[first:], first):
            assert last - first <= (ended - began + BURST) * rate + 1e-3


@given(speed=speeds, ages=ages)
def test_data_time_passes_at_its_speed(speed: float, ages: list[float]) -> None:
    times: list[datetime | None] = [START + timedelta(seconds=age) for age in ages]
    moments = left(Pacer(speed=speed), times, [0.0] * len(ages))
    assert moments == pytest.approx([(age - ages[0]) / speed for age in ages], abs=1e-5)


@given(rate=rates, speed=speeds, ages=ages)
def test_neither_rate_nor_speed_is_passed(rate: float, speed: float, ages: list[float]) -> None:
    times: list[datetime | None] = [START + timedelta(seconds=age) for age in ages]
    moments = left(Pacer(rate, speed), times, [0.0] * len(ages))
    for number, (moment, age) in enumerate(zip(moments, ages, strict=True)):
        assert moment >= number / rate - 1e-5
        assert moment >= (age - ages[0]) / speed - 1e-5


@given(stalls=stalls)
def test_at_full_speed_nobody_waits(stalls: list[float]) -> None:
    pacer, now = Pacer(), 0.0
    for stall in stalls:
        assert pacer.wait(now, START) == 0
        now += stall


@pytest.mark.parametrize(
    ("rate", "speed"), [(0, 1), (-1, 1), (math.inf, 1), (math.nan, 1), (1, 0), (1, math.nan)]
)
def test_a_pace_that_is_none_is_refused(rate: float, speed: float) -> None:
    with pytest.raises(ConfigError):
        Pacer(rate, speed)


@given(speed=speeds)
def test_speed_is_read_as_written(speed: float) -> None:
    assert parse_speed(str(speed)) == speed
    assert parse_speed(" Max ") == math.inf


@pytest.mark.parametrize("text", ["", "fast", "0", "-1", "nan", "3600x"])
def test_a_speed_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="max"):
        parse_speed(text)
