"""Values that other software stored wrongly: each is stored as it was meant, or parked with a reason that says why."""

from __future__ import annotations

import datetime as dt
import io
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import fastavro
import numpy as np
import pytest

from stream_app.errors import ConfigError
from stream_app.event import Event
from stream_app.record import Batch
from stream_app.testing import outcomes

UTC = dt.UTC
EVENT = Event(name="t", key="dev")
NOW = 1_790_000_000_000
MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}
DATE = {"type": "int", "logicalType": "date"}
TIME = {"type": "int", "logicalType": "time-millis"}
LOCAL = {"type": "long", "logicalType": "local-timestamp-millis"}
UUID = {"type": "string", "logicalType": "uuid"}
Outcome = Mapping[str, Any]


def decimal(precision: int, scale: int, **more: Any) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale, **more}


def schema(*fields: Mapping[str, Any]) -> dict[str, Any]:
    own = ({"name": "dev", "type": "string"}, {"name": "id", "type": ["null", "string"], "default": None})
    return {"type": "record", "name": "t", "fields": [*own, *fields]}


def v(avro: Any, **more: Any) -> dict[str, Any]:
    return schema({"name": "v", "type": avro, **more})


def without_logical(avro: Any) -> Any:
    """The types that carry a schema's logical types."""
    if isinstance(avro, dict):
        return {name: without_logical(item) for name, item in avro.items() if name != "logicalType"}
    return [without_logical(item) for item in avro] if isinstance(avro, list) else avro


def as_avro(raw: Mapping[str, Any], **fields: Any) -> bytes:
    """A record in Avro's single-object encoding, its values given as Avro carries them."""
    canonical = fastavro.schema.to_parsing_canonical_form(dict(raw))
    mark = bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))
    body = io.BytesIO()
    parsed = fastavro.parse_schema(without_logical(raw))
    fastavro.schemaless_writer(body, parsed, {"dev": "a", "id": None, **fields})
    return b"\xc3\x01" + mark + body.getvalue()


def raw_avro(raw: Mapping[str, Any], tail: bytes) -> bytes:
    """The same of a record whose fields after `dev` and `id` are these bytes."""
    return as_avro({**raw, "fields": raw["fields"][:2]})[:2] + as_avro_mark(raw) + b"\x02a\x00" + tail


def as_avro_mark(raw: Mapping[str, Any]) -> bytes:
    canonical = fastavro.schema.to_parsing_canonical_form(dict(raw))
    return bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))


def as_json(**fields: Any) -> bytes:
    return json.dumps({"event": "t", "dev": "a", **fields}).encode()


def outcome(
    payload: bytes, *schemas: Mapping[str, Any], event: Event = EVENT, arrived: int | None = NOW
) -> Outcome:
    """What becomes of one record."""
    return outcomes([payload], event=event, schemas=schemas, arrived=arrived)[0][0]


def stored(payload: bytes, *schemas: Mapping[str, Any], **more: Any) -> Any:
    found = outcome(payload, *schemas, **more)
    assert found["status"] == "stored", found
    return found["values"]["v"]


def parked(payload: bytes, *schemas: Mapping[str, Any], **more: Any) -> str:
    """The reason; what is parked here is a violation of the schema."""
    found = outcome(payload, *schemas, **more)
    assert (found["status"], found["code"]) == ("parked", "SCHEMA_VIOLATION"), found
    reason: str = found["reason"]
    return reason


# ---- Times


@pytest.mark.parametrize("avro", [MILLIS, MICROS, ["null", MILLIS]])
@pytest.mark.parametrize("said", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-05:00"])
def test_a_time_whose_offset_takes_it_out_of_the_years_parks_its_row_alone(avro: Any, said: str) -> None:
    good = as_json(v="2026-01-01T00:00:00Z")
    found = outcomes([good, as_json(v=said), good], event=EVENT, schemas=[v(avro)], arrived=NOW)
    assert [item["status"] for (item,) in found] == ["stored", "parked", "stored"]
    assert found[1][0]["code"] == "SCHEMA_VIOLATION"
    assert "field v: " in found[1][0]["reason"]


@pytest.mark.parametrize(
    ("said", "millis"),
    [
        ("2025-12-31T23:59:59.9999999Z", dt.datetime(2025, 12, 31, 23, 59, 59, 999_000, UTC)),
        ("9999-12-31T23:59:59.9999999Z", dt.datetime(9999, 12, 31, 23, 59, 59, 999_000, UTC)),
        ("1969-12-31T23:59:59.9999999Z", dt.datetime(1969, 12, 31, 23, 59, 59, 999_000, UTC)),
        ("2026-01-01T00:00:00.000999999+00:00", dt.datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01 01:00:00+0100", dt.datetime(2026, 1, 1, tzinfo=UTC)),
    ],
)
@pytest.mark.parametrize("path", ["fast", "careful"])
def test_what_is_finer_than_a_millisecond_is_cut_off(said: str, millis: dt.datetime, path: str) -> None:
    more = (
        [] if path == "fast" else [{"name": "list", "type": {"type": "array", "items": "int"}, "default": []}]
    )
    assert stored(as_json(v=said), schema({"name": "v", "type": MILLIS}, *more)) == millis


@pytest.mark.parametrize("said", ["2026-01-01T24:00:00Z", "2026-01-01T23:59:60Z", "2026-02-29T00:00:00Z", ""])
def test_text_that_is_no_time_is_parked(said: str) -> None:
    assert "found text that is not" in parked(as_json(v=said), v(MILLIS))


@pytest.mark.parametrize(
    "said", ["24:00:00", "23:59:60", "12:00:00Z", "12:00:00+01:00", "1:00:00", 86_400_000, -1, "12:00"]
)
def test_a_time_of_day_neither_wraps_nor_loses_an_offset(said: Any) -> None:
    assert "field v: expected a time of day" in parked(as_json(v=said), v(TIME))


def test_a_time_of_day_is_cut_down() -> None:
    assert stored(as_json(v="23:59:59.9999999"), v(TIME)) == "23:59:59.999000"


@pytest.mark.parametrize("number", [2**62, -(2**62), 253_402_300_800_000, -62_135_596_800_001])
def test_a_number_outside_the_years_is_no_timestamp(number: int) -> None:
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
def test_a_number_of_a_coarser_unit_is_parked_unless_that_is_switched_off(
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
def test_other_numbers_are_times(number: int) -> None:
    expected = dt.datetime(1970, 1, 1, tzinfo=UTC) + dt.timedelta(milliseconds=number)
    assert stored(as_json(v=number), v(MILLIS)) == expected
    assert stored(as_avro(v(MILLIS), v=number), v(MILLIS)) == expected


def test_a_time_of_january_1970_as_text_is_no_number_of_seconds() -> None:
    assert stored(as_json(v="1970-01-21T17:13:20Z"), v(MILLIS)) == dt.datetime(
        1970, 1, 21, 17, 13, 20, tzinfo=UTC
    )


# ---- Decimals


@pytest.mark.parametrize(
    "number",
    [
        "1e1000000",
        '"1e1000000"',
        "1e999999999999",
        '"1e-999999999"',
        "9" * 200_000,
        f'"{"9" * 200_000}"',
        '"1e8"',
    ]
    + [
        '"1e100000"',
        "12345678.9",
        '"12.345"',
        "0.001",
        '"many"',
        '"NaN"',
        '"Infinity"',
        '"1_0"',
        '" 1"',
        '""',
    ],
)
def test_a_decimal_beyond_its_digits_is_parked_at_once(number: str) -> None:
    reason = parked(b'{"event":"t","dev":"a","v":%s}' % number.encode(), v(decimal(9, 2)))
    assert reason.startswith(
        "field v: expected a decimal of at most 9 digits, 2 of them after the point, found "
    )
    assert len(reason) < 200


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("1", "1.00"),
        ("-0.10", "-0.10"),
        ('"1e6"', "1000000.00"),
        ("9999999.99", "9999999.99"),
        ("0.07", "0.07"),
        ("1.10e1", "11.00"),
        ("0e999999999", "0.00"),
        ('"0000000000000012.5000"', "12.50"),
        ("90071992.5e-1", "9007199.25"),
    ],
)
def test_a_decimal_is_stored_with_its_digits(number: str, text: str) -> None:
    assert stored(b'{"event":"t","dev":"a","v":%s}' % number.encode(), v(decimal(9, 2))) == text


@pytest.mark.parametrize(
    ("unscaled", "precision", "scale", "text"),
    [
        (123_456_789, 4, 2, None),
        (9_999, 4, 2, "99.99"),
        (10_000, 4, 2, None),
        (-9_999, 4, 4, "-0.9999"),
        (7, 38, 38, "0." + "0" * 37 + "7"),
        (5, 3, 0, "5"),
    ],
)
def test_unscaled_bytes_are_checked_against_the_precision(
    unscaled: int, precision: int, scale: int, text: str | None
) -> None:
    raw = v(decimal(precision, scale))
    payload = as_avro(raw, v=unscaled.to_bytes(8, "big", signed=True))
    if text is None:
        assert "more digits" in parked(payload, raw)
    else:
        assert stored(payload, raw) == text


def test_a_decimal_passes_through_no_float_where_another_field_has_an_alias() -> None:
    raw = schema(
        {"name": "v", "type": decimal(20, 2)}, {"name": "now", "type": "double", "aliases": ["before"]}
    )
    payload = b'{"event":"t","dev":"a","v":123456789012345678.99,"before":1.5}'
    assert stored(payload, raw) == "123456789012345678.99"


@pytest.mark.parametrize(
    ("avro", "words"),
    [
        ({"type": "bytes", "logicalType": "decimal", "scale": 2}, "field v: a decimal has no precision"),
        (decimal(9, -2), "field v: a decimal has the scale -2"),
        (decimal(2, 3), "field v: a decimal has the scale 3"),
        (
            {"type": "bytes", "logicalType": "decimal", "precision": "5"},
            "field v: a decimal has the precision '5'",
        ),
        (["null", decimal(0, 0)], "field v: a decimal has the precision 0"),
        (
            {"type": "fixed", "size": 2, "name": "F", "logicalType": "decimal", "precision": 5},
            "does not fit into 2",
        ),
    ],
)
def test_a_decimal_whose_digits_are_not_declared_is_refused_at_start(avro: Any, words: str) -> None:
    with pytest.raises(ConfigError, match="schemas/t is not an Avro schema: ") as caught:
        outcomes([], event=EVENT, schemas=[v(avro)])
    assert words in str(caught.value.problems[0])


@pytest.mark.parametrize("default", ["\u007f" * 400, "1e1000000", "\u7fff"])
def test_a_default_beyond_the_precision_is_refused_at_start(default: Any) -> None:
    with pytest.raises(ConfigError, match="default of field v: expected a decimal"):
        outcomes(
            [],
            event=EVENT,
            schemas=[
                v(
                    decimal(
                        9,
                        2,
                    ),
                    default=default,
                )
            ],
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
def test_what_an_older_writer_wrote_is_read_by_the_readers_type(
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
def test_what_cannot_be_read_so_is_parked_with_field_and_reason(
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
def test_logical_types_that_mean_something_else_are_refused_at_start(
    writer: Any, reader: Any, shape: str
) -> None:
    if shape == "union":
        writer, reader = ["null", writer], ["null", reader]
    if shape == "array":
        writer, reader = {"type": "array", "items": writer}, {"type": "array", "items": reader}
    with pytest.raises(ConfigError, match="field v: .* cannot be read as "):
        outcomes([], event=EVENT, schemas=[schema({"name": "v", "type": reader}, V2), v(writer)])


@pytest.mark.parametrize(("one", "other"), [(MILLIS, MICROS), (decimal(9, 2), decimal(9, 3))])
def test_versions_that_avro_cannot_tell_apart_are_refused_where_they_differ(one: Any, other: Any) -> None:
    with pytest.raises(ConfigError, match="the same fingerprint, but field v means another value"):
        outcomes([], event=EVENT, schemas=[v(one), v(other)])
    outcomes([], event=EVENT, schemas=[v(one), v(one, doc="the same")])


def test_an_unknown_symbol_is_the_enums_default() -> None:
    old = v({"type": "enum", "name": "E", "symbols": ["A", "B", "C"]})
    for default, expected in (("A", "A"), (None, None)):
        more = {} if default is None else {"default": default}
        new = schema({"name": "v", "type": {"type": "enum", "name": "E", "symbols": ["A", "B"], **more}}, V2)
        assert stored(as_avro(old, v="B"), new, old) == "B"
        if expected is None:
            assert "expected a symbol of E" in parked(as_avro(old, v="C"), new, old)
        else:
            assert stored(as_avro(old, v="C"), new, old) == expected


# ---- Numbers


@pytest.mark.parametrize(
    ("said", "value"),
    [("5.0", 5), ("1e3", 1_000), ("1.686e+18", 1_686 * 10**15), ("-0", 0), ("9223372036854775807", 2**63 - 1)]
    + [("9.223372036854775807e18", 2**63 - 1), ("0.5e1", 5), ("0e5", 0), ("100e-2", 1)],
)
@pytest.mark.parametrize("avro", ["long", ["null", "long"]])
def test_a_whole_number_is_read_however_it_is_written(said: str, value: int, avro: Any) -> None:
    assert stored(b'{"event":"t","dev":"a","v":%s}' % said.encode(), v(avro)) == value


@pytest.mark.parametrize(
    "said", ["5.5", "1e-1", "9223372036854775808", "9" * 4_301, "1e400", "1e1000000", '"5"']
)
def test_what_is_no_whole_number_of_64_bits_is_parked(said: str) -> None:
    reason = parked(b'{"event":"t","dev":"a","v":%s}' % said.encode(), v("long"))
    assert reason.startswith("field v: expected a whole number of 64 bits, found ")


@pytest.mark.parametrize("said", ["1e400", "-1e400", "9" * 400, '"NaN"', "null"])
def test_what_is_no_double_is_parked(said: str) -> None:
    assert "field v: expected a number of 64 bits" in parked(
        b'{"event":"t","dev":"a","v":%s}' % said.encode(), v("double")
    )


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), 0.1, -0.0])
def test_a_double_of_avro_is_stored_to_the_last_bit(number: float) -> None:
    for avro in ("double", ["null", "double"]):
        found = stored(as_avro(v(avro), v=number), v(avro))
        assert struct.pack("<d", found) == struct.pack("<d", number)


@pytest.mark.parametrize("avro", [["double", "string"], {"type": "array", "items": "double"}])
@pytest.mark.parametrize(("number", "found"), [(float("inf"), "infinity"), (float("nan"), "NaN")])
def test_what_json_cannot_say_is_parked_and_never_null(avro: Any, number: float, found: str) -> None:
    carried = number if isinstance(avro, list) else [1.0, number]
    assert f"expected a number of 64 bits, found {found}" in parked(as_avro(v(avro), v=carried), v(avro))


def test_a_required_number_that_is_nan_is_missing() -> None:
    event = Event(name="t", key="dev", required=("v",))
    assert outcome(as_avro(v("double"), v=float("nan")), v("double"), event=event)["code"] == "FIELD_MISSING"


# ---- Bounded by a record's bytes


def zigzag(number: int) -> bytes:
    number, found = (number << 1) ^ (number >> 63), b""
    while number > 127:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])


EMPTY = {"type": "record", "name": "Empty", "fields": []}


@pytest.mark.parametrize(
    ("avro", "tail"),
    [
        ({"type": "array", "items": "null"}, zigzag(100_000_000) + b"\0"),
        ({"type": "array", "items": EMPTY}, zigzag(10_000_000) + b"\0"),
        ({"type": "array", "items": "null"}, zigzag(-100_000_000) + b"\0\0"),
        ({"type": "array", "items": "null"}, zigzag(-(2**62)) + b"\0\0"),
        ({"type": "array", "items": "null"}, (zigzag(9_999) + b"") * 5 + b"\0"),
        ({"type": "map", "values": "null"}, zigzag(2**40) + b"\0"),
        (
            {"type": "array", "items": {"type": "array", "items": "null"}},
            zigzag(3) + (zigzag(9_000) + b"\0") * 3 + b"\0",
        ),
        ("string", zigzag(2**40)),
        ("bytes", zigzag(-1)),
        ("string", b"\xff" * 9),
        ("long", b"\xff" * 11),
        (["null", "long"], zigzag(2)),
        ("boolean", b"\2"),
    ],
)
@pytest.mark.parametrize("skipped", [False, True])
def test_counts_and_lengths_are_bounded_by_the_record(avro: Any, tail: bytes, skipped: bool) -> None:
    old = v(avro)
    schemas = [schema({"name": "w", "type": "int", "default": 1}), old] if skipped else [old]
    assert "field v" in parked(raw_avro(old, tail), *schemas)


def test_a_list_of_nulls_of_a_usual_length_is_stored() -> None:
    raw = v({"type": "array", "items": "null"})
    assert stored(raw_avro(raw, zigzag(3) + b"\0"), raw) == "[null,null,null]"


def test_avro_that_ends_early_or_late_is_parked() -> None:
    raw = v("long")
    assert "the end of the record" in parked(raw_avro(raw, b""), raw)
    assert parked(raw_avro(raw, b"\2\2"), raw) == "expected the end of the record, found 1 more bytes"


# ---- Types


NODE = {
    "type": "record",
    "name": "Node",
    "fields": [{"name": "n", "type": "int"}, {"name": "next", "type": ["null", "Node"], "default": None}],
}
A, B = ({"type": "record", "name": name, "fields": [{"name": name.lower(), "type": "int"}]} for name in "AB")


@pytest.mark.parametrize(
    ("avro", "carried", "expected", "sent"),
    [
        ([A, B], ("B", {"b": 1}), '{"b":1}', {"b": 1}),
        (["string", "bytes"], b"\1", "AQ==", "AQ=="),
        ([MILLIS, "string"], "x", "x", "x"),
        ([{"type": "map", "values": "int"}, A], ("A", {"a": 1}), '{"a":1}', {"a": 1}),
    ],
)
def test_a_union_that_json_cannot_tell_apart_is_read_from_avro(
    avro: Any, carried: Any, expected: Any, sent: Any
) -> None:
    assert stored(as_avro(v(avro), v=carried), v(avro)) == expected
    assert "a value whose type JSON can tell (send Avro)" in parked(as_json(v=sent), v(avro))


def test_a_type_that_contains_itself_is_read_in_both_forms() -> None:
    value = {"n": 1, "next": {"n": 2, "next": None}}
    for payload in (as_avro(v(NODE), v=value), as_json(v={"n": 1, "next": {"n": 2}})):
        assert json.loads(stored(payload, v(NODE))) == value
    deep: dict[str, Any] = {"n": 1, "next": None}
    for _ in range(70):
        deep = {"n": 1, "next": deep}
    assert "nested levels" in parked(as_avro(v(NODE), v=deep), v(NODE))


@pytest.mark.parametrize(
    "said",
    [
        f"{brace}00000000-0000-0000-0000-00000000000{end}"
        for brace, end in (("", "A"), ("{", "a}"), ("urn:uuid:", "a"))
    ]
    + ["0" * 31 + "a"],
)
@pytest.mark.parametrize("avro", [UUID, {"type": "fixed", "name": "F", "size": 16, "logicalType": "uuid"}])
def test_a_uuid_is_stored_in_its_canonical_form(said: str, avro: Any) -> None:
    canonical = "00000000-0000-0000-0000-00000000000a"
    assert stored(as_json(v=said), v(avro)) == canonical
    carried = said if avro is UUID else bytes(15) + b"\x0a"
    assert stored(as_avro(v(avro), v=carried), v(avro)) == canonical
    assert "expected a UUID" in parked(as_json(v=f"'{said}'"), v(avro))


def test_a_name_that_is_none_of_avros_is_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigError, match="field instance-id: Avro names are made of letters") as caught:
        outcomes([], event=EVENT, schemas=[schema({"name": "instance-id", "type": "int"})])
    assert "'instance-id' as an alias" in str(caught.value.problems[0])


# ---- Names


def test_fields_that_would_share_a_column_are_refused_at_start() -> None:
    both = schema({"name": "shard", "type": "int"}, {"name": "t_shard", "type": "int"})
    with pytest.raises(ConfigError, match="fields 'shard' and 't_shard' would be stored in one column"):
        outcomes([], event=EVENT, schemas=[both])
    for name in ("shard", "t_shard"):
        raw = schema({"name": name, "type": "int"})
        assert outcome(as_json(**{name: 5}), raw)["values"] == {"dev": "a", "id": None, name: 5}


def test_calculated_columns_that_would_share_a_column_park_their_rows() -> None:
    def calculate(batch: Batch) -> dict[str, Any]:
        return {"t_shard": batch["shard"] + 1}

    event = Event(name="t", key="dev", calculate=calculate)
    found = outcome(as_json(shard=5), schema({"name": "shard", "type": "int"}), event=event)
    assert (found["code"], "would be stored in one column" in found["reason"]) == ("CALCULATION_FAILED", True)


def test_a_field_whose_name_begins_as_a_helpers_does_is_stored() -> None:
    raw = schema({"name": "explanation_code", "type": "int"})
    assert outcome(as_json(explanation_code=5), raw)["values"]["explanation_code"] == 5


def test_an_alias_names_one_field() -> None:
    fields = {"name": "a", "type": "int", "aliases": ["b"]}, {"name": "b", "type": "int"}
    with pytest.raises(ConfigError, match="field 'a' has the alias 'b', which is also the name of a field"):
        outcomes([], event=EVENT, schemas=[schema(*fields)])
    fields = {"name": "a", "type": "int", "aliases": ["c"]}, {"name": "b", "type": "int", "aliases": ["c"]}
    with pytest.raises(ConfigError, match="fields 'a' and 'b' have the same alias 'c'"):
        outcomes([], event=EVENT, schemas=[schema(*fields)])


# ---- Identity


def test_an_empty_id_identifies_nothing() -> None:
    twice = [as_json(id="", v=1), as_json(id="", v=2), as_json(id="x", v=3), as_json(id="x", v=4)]
    found = outcomes(twice, event=EVENT, schemas=[v("int")], arrived=NOW)
    assert [item["status"] for (item,) in found] == ["stored", "stored", "stored", "repeated"]


@pytest.mark.parametrize("path", ["fast", "careful"])
def test_a_required_id_that_is_empty_is_missing(path: str) -> None:
    event = Event(name="t", key="dev", required=("id",))
    raw = v("int") if path == "fast" else v({"type": "array", "items": "int"})
    payload = as_json(id="", v=1 if path == "fast" else [1])
    assert outcome(payload, raw, event=event)["code"] == "FIELD_MISSING"


@pytest.mark.parametrize("required", [(), ("id",)])
def test_the_envelopes_id_stands_in_for_an_empty_one(required: Sequence[str]) -> None:
    event = Event(name="t", key="dev", required=tuple(required))
    payload = json.dumps({"detail-type": "t", "id": "bus", "detail": {"dev": "a", "id": "", "v": 1}}).encode()
    assert outcome(payload, v("int"), event=event)["values"]["id"] == "bus"


@pytest.mark.parametrize("avro", ["int", "long"])
def test_numbers_that_may_be_missing_are_ids_to_the_last_digit(avro: str) -> None:
    event = Event(name="t", key="dev", id="v")
    large = 2**53 if avro == "long" else 2**30
    payloads = [
        as_json(v=large),
        as_json(v=large + 1),
        as_json(v=None),
        as_json(v=None),
        as_json(v=large + 1),
    ]
    raw = v(["null", avro], default=None)
    found = outcomes(payloads, event=event, schemas=[raw], arrived=NOW)
    assert [item["status"] for (item,) in found] == ["stored"] * 4 + ["repeated"]


# ---- Numbers that may be missing, in a user's functions


def test_numbers_and_booleans_that_may_be_missing_compare_and_are_stored_as_they_are() -> None:
    def verify(batch: Batch) -> dict[str, Any]:
        assert batch["v"].dtype == batch["b"].dtype == np.float64
        return {"v is at most 9": ~((batch["v"] > 9) & (batch["v"] < 2**50)), "b": ~(batch["b"] == 0)}

    event = Event(name="t", key="dev", verify=verify)
    raw = schema(
        {"name": "v", "type": ["null", "long"], "default": None},
        {"name": "b", "type": ["boolean", "null"], "default": True},
    )
    rows = [(5, None), (None, True), (2**53 + 1, True), (-(2**63), None), (10, True), (1, False)]
    payloads = [as_json(v=number, b=flag) for number, flag in rows]
    together = outcomes(payloads, event=event, schemas=[raw], arrived=NOW)
    alone = outcomes(payloads, event=event, schemas=[raw], arrived=NOW, splits=[1] * len(rows))
    assert together == alone
    values = [item["values"] for (item,) in together[:4]]
    assert [(row["v"], row["b"]) for row in values] == rows[:4]
    assert [item["code"] for (item,) in together[4:]] == ["RULE_BROKEN"] * 2


def test_a_previous_number_that_is_not_there_is_nan() -> None:
    def calculate(batch: Batch) -> dict[str, Any]:
        return {"more": batch["v"] > batch["previous.v"], "same": batch["b"] == batch["previous.b"]}

    event = Event(name="t", key="dev", calculate=calculate, previous=("v", "b"))
    raw = schema({"name": "v", "type": "long"}, {"name": "b", "type": "boolean"})
    found = outcomes([as_json(v=1, b=True), as_json(v=2, b=True)], event=event, schemas=[raw], arrived=NOW)
    assert [(item["values"]["more"], item["values"]["same"]) for (item,) in found] == [
        (False, False),
        (True, True),
    ]


# ---- Reasons


def test_reasons_say_where_and_never_what_was_sent() -> None:
    raw = v({"type": "map", "values": {"type": "array", "items": A}})
    reason = parked(as_json(v={"secret": [{"a": 1}, {"a": "secret"}]}), raw)
    assert reason == "field v[entry 0][1].a: expected a whole number of 32 bits, found text"


def test_names_that_stand_twice_the_last_counts() -> None:
    for first in ("1", '"x"', "1e400"):
        assert stored(b'{"event":"t","dev":"a","v":%s,"v":2}' % first.encode(), v("long")) == 2
