"""Records of older schema versions are read as the current version, or the versions are rejected at start."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from stream_app.errors import ConfigError
from stream_app.testing import outcomes
from tests.unit.values import (
    DATE,
    EVENT,
    LOCAL,
    MICROS,
    MILLIS,
    TIME,
    UTC,
    UUID,
    as_avro,
    decimal,
    parked,
    schema,
    stored,
    v,
)

# ---- Older writers

V1, V2 = {"name": "v"}, {"name": "new", "type": "int", "default": 1}
WHEN = 1_767_225_600_123


@pytest.mark.parametrize(
    ("writer", "reader", "carried", "expected"),
    [
        (MILLIS, "long", WHEN, WHEN),
        (MILLIS, ["null", "long"], WHEN, WHEN),
        (MILLIS, "double", WHEN, float(WHEN)),
        (["null", MILLIS], ["null", "long"], WHEN, WHEN),
        ("long", MILLIS, WHEN, dt.datetime(2026, 1, 1, 0, 0, 0, 123_000, UTC)),
        (MILLIS, MICROS, WHEN, dt.datetime(2026, 1, 1, 0, 0, 0, 123_000, UTC)),
        (MICROS, MILLIS, WHEN * 1_000 + 999, dt.datetime(2026, 1, 1, 0, 0, 0, 123_000, UTC)),
        (MICROS, MILLIS, -1, dt.datetime(1969, 12, 31, 23, 59, 59, 999_000, UTC)),
        (
            {"type": "long", "logicalType": "timestamp-nanos"},
            MILLIS,
            -1,
            dt.datetime(1969, 12, 31, 23, 59, 59, 999_000, UTC),
        ),
        (MILLIS, {"type": "long", "logicalType": "timestamp-nanos"}, WHEN, WHEN * 1_000_000),
        (DATE, "int", 20_454, 20_454),
        (DATE, "long", 20_454, 20_454),
        ("int", DATE, 20_454, "2026-01-01"),
        (TIME, "int", 1_500, 1_500),
        (TIME, {"type": "long", "logicalType": "time-micros"}, 1_500, "00:00:01.500000"),
        (LOCAL, "long", WHEN, WHEN),
        (UUID, "string", "A0000000-0000-0000-0000-000000000005", "A0000000-0000-0000-0000-000000000005"),
        ("string", UUID, "A0000000-0000-0000-0000-000000000005", "a0000000-0000-0000-0000-000000000005"),
        (decimal(9, 2), "bytes", b"\x01\x00", "AQA="),
        ("bytes", decimal(9, 2), b"\x01\x00", "2.56"),
        (decimal(9, 2), decimal(9, 3), b"\x01\x00", "2.560"),
        (decimal(9, 3), decimal(9, 2), b"\x0a", "0.01"),
        ({"type": "array", "items": MILLIS}, {"type": "array", "items": "long"}, [WHEN], f"[{WHEN}]"),
        ({"type": "map", "values": DATE}, {"type": "map", "values": "int"}, {"a": 1}, '{"a":1}'),
        ("int", "float", 16_777_217, 16_777_216.0),
    ],
)
def test_values_of_an_older_writer_are_read_as_the_readers_type(
    writer: Any, reader: Any, carried: Any, expected: Any
) -> None:
    old, new = v(writer), schema({"name": "v", "type": reader}, V2)
    assert stored(as_avro(old, v=carried), new, old) == expected


@pytest.mark.parametrize(
    ("writer", "reader", "carried", "words"),
    [
        (decimal(9, 3), decimal(9, 2), b"\x0b", "found more digits after the point"),
        (decimal(9, 0), decimal(4, 2), b"\x7f", "found more digits"),
        ("string", UUID, "{no}", "expected a UUID"),
        ("long", "int", 5, "expected int, found long in the writer's schema"),
        ("string", MILLIS, "x", "expected timestamp, found string in the writer's schema"),
        (["null", "string"], ["null", "long"], "x", "found string in the writer's schema"),
    ],
)
def test_unresolvable_values_are_parked_with_field_and_reason(
    writer: Any, reader: Any, carried: Any, words: str
) -> None:
    old, new = v(writer), schema({"name": "v", "type": reader}, V2)
    reason = parked(as_avro(old, v=carried), new, old)
    assert reason.startswith("field v: ")
    assert words in reason


@pytest.mark.parametrize(
    ("writer", "reader"),
    [
        (DATE, MILLIS),
        (LOCAL, MILLIS),
        (MILLIS, LOCAL),
        (TIME, MILLIS),
        (TIME, DATE),
        (decimal(4, 2), "string"),
    ],
)
@pytest.mark.parametrize("shape", ["plain", "union", "array"])
def test_conflicting_logical_types_are_rejected_at_start(writer: Any, reader: Any, shape: str) -> None:
    if shape == "union":
        writer, reader = ["null", writer], ["null", reader]
    if shape == "array":
        writer, reader = {"type": "array", "items": writer}, {"type": "array", "items": reader}
    with pytest.raises(ConfigError, match=r"field v: .* cannot be read as "):
        outcomes([], event=EVENT, schemas=[schema({"name": "v", "type": reader}, V2), v(writer)])


@pytest.mark.parametrize(("one", "other"), [(MILLIS, MICROS), (decimal(9, 2), decimal(9, 3))])
def test_versions_with_the_same_fingerprint_must_not_differ(one: Any, other: Any) -> None:
    with pytest.raises(ConfigError, match="the same fingerprint, but field v has another logical type"):
        outcomes([], event=EVENT, schemas=[v(one), v(other)])
    outcomes([], event=EVENT, schemas=[v(one), v(one, doc="the same")])


def test_an_unknown_symbol_becomes_the_default_of_the_enum() -> None:
    old = v({"type": "enum", "name": "E", "symbols": ["A", "B", "C"]})
    for default, expected in (("A", "A"), (None, None)):
        more = {} if default is None else {"default": default}
        new = schema({"name": "v", "type": {"type": "enum", "name": "E", "symbols": ["A", "B"], **more}}, V2)
        assert stored(as_avro(old, v="B"), new, old) == "B"
        if expected is None:
            assert "expected a symbol of E" in parked(as_avro(old, v="C"), new, old)
        else:
            assert stored(as_avro(old, v="C"), new, old) == expected
