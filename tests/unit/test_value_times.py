"""Times are truncated and never rounded, lie in the years 1 to 9999 and have the unit of their field."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from stream_app.model.event import Event
from stream_app.testing import outcomes
from tests.unit.values import (
    EVENT,
    MICROS,
    MILLIS,
    NOW,
    TIME,
    UTC,
    as_avro,
    as_json,
    parked,
    schema,
    stored,
    v,
)

# ---- Times


@pytest.mark.parametrize("avro", [MILLIS, MICROS, ["null", MILLIS]])
@pytest.mark.parametrize("sent", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-05:00"])
def test_a_time_that_its_offset_moves_out_of_range_parks_only_its_row(avro: Any, sent: str) -> None:
    good = as_json(v="2026-01-01T00:00:00Z")
    found = outcomes([good, as_json(v=sent), good], event=EVENT, schemas=[v(avro)], arrived=NOW)
    assert [item["status"] for (item,) in found] == ["stored", "parked", "stored"]
    assert found[1][0]["code"] == "SCHEMA_VIOLATION"
    assert "field v: " in found[1][0]["reason"]


@pytest.mark.parametrize(
    ("sent", "millis"),
    [
        ("2025-12-31T23:59:59.9999999Z", dt.datetime(2025, 12, 31, 23, 59, 59, 999_000, UTC)),
        ("9999-12-31T23:59:59.9999999Z", dt.datetime(9999, 12, 31, 23, 59, 59, 999_000, UTC)),
        ("1969-12-31T23:59:59.9999999Z", dt.datetime(1969, 12, 31, 23, 59, 59, 999_000, UTC)),
        ("2026-01-01T00:00:00.000999999+00:00", dt.datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01 01:00:00+0100", dt.datetime(2026, 1, 1, tzinfo=UTC)),
    ],
)
@pytest.mark.parametrize("path", ["fast", "careful"])
def test_fractions_finer_than_a_millisecond_are_truncated(sent: str, millis: dt.datetime, path: str) -> None:
    more = (
        [] if path == "fast" else [{"name": "list", "type": {"type": "array", "items": "int"}, "default": []}]
    )
    assert stored(as_json(v=sent), schema({"name": "v", "type": MILLIS}, *more)) == millis


@pytest.mark.parametrize("sent", ["2026-01-01T24:00:00Z", "2026-01-01T23:59:60Z", "2026-02-29T00:00:00Z", ""])
def test_text_that_is_not_a_time_is_parked(sent: str) -> None:
    assert "found invalid text" in parked(as_json(v=sent), v(MILLIS))


@pytest.mark.parametrize(
    "sent", ["24:00:00", "23:59:60", "12:00:00Z", "12:00:00+01:00", "1:00:00", 86_400_000, -1, "12:00"]
)
def test_a_time_of_day_neither_wraps_nor_loses_an_offset(sent: Any) -> None:
    assert "field v: expected a time of day" in parked(as_json(v=sent), v(TIME))


def test_a_time_of_day_is_truncated() -> None:
    assert stored(as_json(v="23:59:59.9999999"), v(TIME)) == "23:59:59.999000"


@pytest.mark.parametrize("number", [2**62, -(2**62), 253_402_300_800_000, -62_135_596_800_001])
def test_a_number_outside_the_years_1_to_9999_is_not_a_timestamp(number: int) -> None:
    assert "outside that range" in parked(as_avro(v(MILLIS), v=number), v(MILLIS))
    assert "field v: " in parked(as_json(v=number), v(MILLIS))


@pytest.mark.parametrize("form", ["json", "avro", "float"])
@pytest.mark.parametrize(
    ("avro", "number", "unit"),
    [
        (MILLIS, 1_790_000_000, "seconds"),
        (MILLIS, 1_356_998_400, "seconds"),
        (MICROS, 1_790_000_000, "seconds"),
        (MICROS, 1_790_000_000_000, "milliseconds"),
    ],
)
def test_a_number_in_a_coarser_unit_is_parked_unless_the_check_is_disabled(
    form: str, avro: Any, number: int, unit: str
) -> None:
    raw = v(avro)
    payload = (
        as_avro(raw, v=number) if form == "avro" else as_json(v=float(number) if form == "float" else number)
    )
    assert f"a number that looks like {unit} since 1970" in parked(payload, raw)
    lax = Event(name="t", key="dev", reject_coarse_times=False)
    ticks = dt.timedelta(milliseconds=number) if avro is MILLIS else dt.timedelta(microseconds=number)
    assert stored(payload, raw, event=lax) == dt.datetime(1970, 1, 1, tzinfo=UTC) + ticks


@pytest.mark.parametrize("number", [0, -1, 1, -1_790_000_000, 86_400_000, 10**11, NOW, 1_356_998_400_000])
def test_all_other_numbers_are_times(number: int) -> None:
    expected = dt.datetime(1970, 1, 1, tzinfo=UTC) + dt.timedelta(milliseconds=number)
    assert stored(as_json(v=number), v(MILLIS)) == expected
    assert stored(as_avro(v(MILLIS), v=number), v(MILLIS)) == expected


def test_a_time_of_january_1970_as_text_is_not_taken_for_seconds() -> None:
    assert stored(as_json(v="1970-01-21T17:13:20Z"), v(MILLIS)) == dt.datetime(
        1970, 1, 21, 17, 13, 20, tzinfo=UTC
    )
