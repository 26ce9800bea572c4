"""Encoded rows become columns that follow the schema, whoever wrote them and in whichever form."""

from __future__ import annotations

import datetime as dt
import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.event import Event
from stream_app.pipeline.flow import Processed, process
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.state import ShardState
from stream_app.record import Code
from stream_app.testing import record
from tests import avro
from tests.samples import START, as_avro, as_envelope, as_json
from tests.support import fates_of

MAX = 1_000_000
EVERY = Registry.of([avro.EVERY], {"every": [avro.SCHEMA]})


def one_schema(*fields: dict[str, Any], name: str = "thing") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": "key", "type": "string"}, *fields]}


def thing(*versions: dict[str, Any], **declared: Any) -> Registry:
    """A registry of the event `thing` with these versions of its schema."""
    return Registry.of([Event(name="thing", key="key", **declared)], {"thing": versions})


def run(registry: Registry, *payloads: bytes) -> Processed:
    events = {name: codec.event for name, codec in registry.codecs.items()}
    records = [record(data, at) for at, data in enumerate(payloads)]
    return process(records, registry, ShardState(events, 9), MAX)


def column(registry: Registry, name: str, *payloads: bytes) -> list[Any]:
    result = run(registry, *payloads)
    assert not result.failed
    values: list[Any] = result.passed["thing"][name].tolist()
    return values


def codes(registry: Registry, *payloads: bytes) -> list[tuple[Code, str]]:
    return [(failure.code, failure.reason) for failure in run(registry, *payloads).failed]


# ---- Two forms of one record


@given(avro.records)
def test_avro_and_json_of_a_record_are_the_same_columns(fields: dict[str, Any]) -> None:
    binary = run(EVERY, as_avro(fields, avro.SCHEMA))
    text = run(EVERY, msgspec.json.encode({"event": "every", **avro.to_json(fields)}))
    assert not binary.failed
    assert fates_of(text) == fates_of(binary)


@given(avro.records)
def test_a_time_may_be_the_number_that_avro_carries(fields: dict[str, Any]) -> None:
    numbers = {name: avro.as_number(fields[name], unit) for name, unit in avro.UNITS.items()}
    binary = run(EVERY, as_avro(fields, avro.SCHEMA))
    text = run(EVERY, as_json("every", {**avro.to_json(fields), **numbers}))
    assert fates_of(text) == fates_of(binary)


@given(avro.records)
def test_columns_hold_what_was_sent(fields: dict[str, Any]) -> None:
    batch = run(EVERY, as_avro(fields, avro.SCHEMA)).passed["every"]
    for name in ("flag", "small", "large", "double", "text", "choice", "many", "named", "maybe_large"):
        assert batch[name].tolist() == [fields[name]]
    assert batch["single"].tolist() == [avro.single(fields["single"])]
    assert batch["millis"].dtype == np.dtype("datetime64[ms]")
    assert batch["micros"].dtype == np.dtype("datetime64[us]")
    assert int(batch["millis"][0].astype(np.int64)) == avro.as_number(fields["millis"], "ms")
    assert int(batch["micros"][0].astype(np.int64)) == avro.as_number(fields["micros"], "us")
    assert batch["identity"].tolist() == [str(fields["identity"])]
    assert batch["price"].tolist() == [f"{fields['price']:.2f}"]
    assert json.loads(json.dumps(batch["place"][0])) == batch["place"][0]


def test_columns_have_the_kinds_that_the_schema_gives_them_even_without_rows() -> None:
    nullable = {"maybe_flag": object, "maybe_small": object, "maybe_single": np.float64}
    kinds = {"flag": np.bool_, "small": np.int64, "single": np.float64, "text": object, **nullable}
    result = run(EVERY, as_avro(avro.EXAMPLE, avro.SCHEMA))
    batch = result.passed["every"]
    assert {name: batch[name].dtype for name in kinds} == {
        name: np.dtype(kind) for name, kind in kinds.items()
    }
    assert list(batch.columns) == ["key", *avro.TYPES, "arrived"]


# ---- Older and newer writers

V1 = one_schema({"name": "temp", "type": "int"}, {"name": "gone", "type": "string"})
V2 = one_schema(
    {"name": "temperature", "type": "double", "aliases": ["temp", "t"]},
    {"name": "unit", "type": "string", "default": "°C"},
    {"name": "count", "type": ["null", "long"], "default": None},
)
V3 = one_schema(
    {"name": "temperature", "type": "double"},
    {"name": "unit", "type": "string"},
    {"name": "count", "type": ["null", "long"], "default": None},
    {"name": "later", "type": {"type": "array", "items": "string"}},
)
OLD = {"key": "k", "temp": 5, "gone": "x"}
NEW = {"key": "k", "temperature": 5.5, "unit": "F", "count": 2**53 + 1, "later": ["y"]}


@pytest.mark.parametrize("raw", [as_avro(OLD, V1), as_json("thing", OLD)], ids=["avro", "json"])
def test_an_older_writer_is_read_by_alias_promotion_and_default(raw: bytes) -> None:
    registry = thing(V2, V1)
    assert column(registry, "temperature", raw) == [5.0]
    assert column(registry, "unit", raw) == ["°C"]
    assert column(registry, "count", raw) == [None]


@pytest.mark.parametrize("raw", [as_avro(NEW, V3), as_json("thing", NEW)], ids=["avro", "json"])
def test_a_newer_writers_further_fields_are_passed_over(raw: bytes) -> None:
    registry = thing(V2, V3)
    assert column(registry, "temperature", raw) == [5.5]
    assert column(registry, "unit", raw) == ["F"]
    assert column(registry, "count", raw) == [2**53 + 1]
    assert "later" not in run(registry, raw).passed["thing"]


def test_todays_name_wins_over_an_older_one() -> None:
    assert column(thing(V2), "temperature", as_json("thing", {"key": "k", "temp": 1, "temperature": 2})) == [
        2.0
    ]
    assert column(thing(V2), "temperature", as_json("thing", {"key": "k", "t": 1})) == [1.0]


def test_an_alias_is_checked_as_the_field_is() -> None:
    assert codes(thing(V2), as_json("thing", {"key": "k", "temp": "hot"})) == [
        (Code.SCHEMA_VIOLATION, "Expected `float`, got `str` - at `$.temperature`")
    ]
    assert codes(thing(V2), as_json("thing", {"key": "k"})) == [
        (Code.SCHEMA_VIOLATION, "Object missing required field `temperature`")
    ]


def test_a_writer_whose_schema_was_not_kept_is_unknown() -> None:
    failed = run(thing(V2), as_avro(OLD, V1)).failed[0]
    assert failed.code is Code.UNKNOWN_SCHEMA
    assert failed.schema is not None
    assert failed.schema in failed.reason


@pytest.mark.parametrize(
    ("writer", "reader", "sent", "read"),
    [
        ("int", "long", 7, 7),
        ("int", "float", 16_777_217, 16_777_216.0),
        ("int", "double", 7, 7.0),
        ("long", "float", 2**40, float(2**40)),
        ("long", "double", 2**52, float(2**52)),
        ("float", "double", 0.5, 0.5),
        ("string", "bytes", "é", "w6k="),
        ("bytes", "string", "é".encode(), "é"),
    ],
)
def test_promotions(writer: str, reader: str, sent: Any, read: Any) -> None:
    old, new = one_schema({"name": "x", "type": writer}), one_schema({"name": "x", "type": reader})
    assert column(thing(new, old), "x", as_avro({"key": "k", "x": sent}, old)) == [read]


@pytest.mark.parametrize(
    ("avro_type", "default", "held"),
    [
        ("double", 1, 1.0),
        ("bytes", "\u00ff\u0001", "/wE="),
        ({"type": "fixed", "name": "Two", "size": 2}, "\u0001\u0002", "AQI="),
        ({"type": "int", "logicalType": "date"}, 1, "1970-01-02"),
        ({"type": "array", "items": "int"}, [1, 2], [1, 2]),
        ({"type": "map", "values": "int"}, {"a": 1}, {"a": 1}),
        ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 1}, "\u000f", "1.5"),
        (["string", "null"], "x", "x"),
        (
            avro.PLACE,
            {"name": "x", "height": None},
            {"name": "x", "height": None, "since": None, "tags": ["new"]},
        ),
    ],
)
def test_a_default_is_the_same_from_both_forms(avro_type: Any, default: Any, held: Any) -> None:
    old = one_schema()
    new = one_schema({"name": "x", "type": avro_type, "default": default})
    registry = thing(new, old)
    assert column(registry, "x", as_avro({"key": "k"}, old), as_json("thing", {"key": "k"})) == [held, held]


def test_the_default_of_a_time_is_a_number_of_milliseconds() -> None:
    new = one_schema({"name": "x", "type": {"type": "long", "logicalType": "timestamp-millis"}, "default": 5})
    registry = thing(new, one_schema())
    result = run(registry, as_avro({"key": "k"}, one_schema()), as_json("thing", {"key": "k"}))
    assert result.passed["thing"]["x"].astype(np.int64).tolist() == [5, 5]


# ---- What is missing

NEEDY = one_schema(
    {"name": "must", "type": ["null", "double"]},
    {"name": "also", "type": "long", "default": 3, "aliases": ["too"]},
    {"name": "when", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "list", "type": {"type": "array", "items": "int"}},
)
FULL = {"must": 1.0, "also": 2, "when": START, "list": [1], "key": "k"}
REQUIRED = ("key", "must", "also", "when", "list")


@given(st.sets(st.sampled_from(REQUIRED)), st.sets(st.sampled_from(REQUIRED)))
def test_a_required_field_that_is_absent_or_null_is_field_missing(absent: set[str], null: set[str]) -> None:
    sent = {name: None if name in null else value for name, value in FULL.items() if name not in absent}
    missing = [field["name"] for field in NEEDY["fields"] if sent.get(field["name"]) is None]
    expected = [(Code.FIELD_MISSING, ", ".join(missing))] if missing else []
    assert codes(thing(NEEDY, required=REQUIRED), as_json("thing", sent)) == expected


def test_a_required_field_that_the_writer_of_avro_lacks_or_says_is_null_is_field_missing() -> None:
    registry = thing(NEEDY, one_schema(), required=REQUIRED)
    null = as_avro({**FULL, "must": None}, NEEDY)
    assert codes(registry, as_avro({"key": "k"}, one_schema()), null, as_avro(FULL, NEEDY)) == [
        (Code.FIELD_MISSING, "must, also, when, list"),
        (Code.FIELD_MISSING, "must"),
    ]


def test_an_absent_field_that_is_not_required_is_null_its_default_or_a_violation() -> None:
    raw = one_schema({"name": "a", "type": ["null", "double"]}, {"name": "b", "type": "long", "default": 3})
    batch = run(thing(raw), as_json("thing", {"key": "k"})).passed["thing"]
    assert math.isnan(batch["a"][0])
    assert batch["b"].tolist() == [3]
    with_c = one_schema({"name": "c", "type": "long"})
    assert codes(thing(with_c), as_json("thing", {"key": "k"})) == [
        (Code.SCHEMA_VIOLATION, "Object missing required field `c`")
    ]


@pytest.mark.parametrize("required", [(), ("id",)])
@pytest.mark.parametrize("shape", ["plain", "with objects"])
def test_the_envelopes_id_stands_in_for_a_missing_one(required: tuple[str, ...], shape: str) -> None:
    more = (
        [{"name": "day", "type": {"type": "int", "logicalType": "date"}}] if shape == "with objects" else []
    )
    registry = thing(one_schema({"name": "id", "type": ["null", "string"]}, *more), required=required)
    sent = {"key": "k", "day": 1}
    wrapped = as_envelope("thing", sent, "from the bus"), as_envelope("thing", {**sent, "id": "own"}, "no")
    assert column(registry, "id", *wrapped) == ["from the bus", "own"]
    if more:
        assert column(registry, "day", *wrapped) == ["1970-01-02"] * 2


def test_the_envelopes_id_is_no_number() -> None:
    registry = thing(one_schema({"name": "id", "type": ["null", "long"]}), required=("id",))
    assert codes(registry, as_envelope("thing", {"key": "k"}, "12")) == [(Code.FIELD_MISSING, "id")]


# ---- What does not fit


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("flag", 1),
        ("flag", "true"),
        ("small", 2**31),
        ("small", 1.5),
        ("small", True),
        ("large", 2**63),
        ("large", "5"),
        ("large", 10**400),
        ("single", 1e39),
        ("double", "0.5"),
        ("double", True),
        ("double", 10**400),
        ("text", 5),
        ("text", None),
        ("raw", "not base64!"),
        ("choice", "BLUE"),
        ("four", "AAE="),
        ("many", [1, "2"]),
        ("many", {"1": 2}),
        ("named", {"a": "b"}),
        ("place", {}),
        ("place", {"name": 5}),
        ("place", []),
        ("either", True),
        ("millis", "2016-12-01T00:00:00"),
        ("millis", "yesterday"),
        ("millis", 1.5),
        ("millis", 2**60),
        ("maybe_millis", "2016-12-01T00:00:00"),
        ("micros", -(2**63)),
        ("local_millis", "2016-12-01T00:00:00Z"),
        ("day", "2016-13-01"),
        ("day", 2**31 - 1),
        ("clock_millis", "25:00:00"),
        ("clock_millis", -1),
        ("price", "1.005"),
        ("price", "12345678901.00"),
        ("price", "many"),
        ("identity", "not-a-uuid"),
        ("nothing", 5),
    ],
)
def test_a_value_of_another_type_is_a_violation(field: str, value: Any) -> None:
    sent = {**avro.to_json(avro.EXAMPLE), field: value}
    failed = run(EVERY, json.dumps({"event": "every", **sent}).encode()).failed
    assert [(f.stage, f.code, f.event) for f in failed] == [("conform", Code.SCHEMA_VIOLATION, "every")]
    assert failed[0].schema == EVERY.codecs["every"].schema.fingerprint


@given(st.integers(-(2**63), 2**63 - 1))
def test_whole_numbers_beyond_two_to_the_53_are_exact(value: int) -> None:
    raw = one_schema({"name": "x", "type": "long"}, {"name": "y", "type": ["null", "long"]})
    sent = {"key": "k", "x": value, "y": value}
    for payload in (as_json("thing", sent), as_avro(sent, raw)):
        batch = run(thing(raw), payload).passed["thing"]
        assert (batch["x"].tolist(), batch["y"].tolist()) == ([value], [value])


def test_a_time_in_any_zone_is_the_same_instant() -> None:
    raw = one_schema({"name": "x", "type": {"type": "long", "logicalType": "timestamp-millis"}})
    said = ("2016-12-01T00:00:00Z", "2016-12-01T08:00:00+08:00", "2016-12-01 00:00:00.0009Z", START)
    payloads = [as_json("thing", {"key": "k", "x": x}) for x in said]
    values = run(thing(raw), *payloads).passed["thing"]["x"].astype(np.int64).tolist()
    assert values == [START] * 4


def test_a_time_before_1970_is_cut_down_as_a_later_one_is() -> None:
    raw = one_schema({"name": "x", "type": {"type": "long", "logicalType": "timestamp-millis"}})
    early = dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, dt.UTC)
    payloads = as_json("thing", {"key": "k", "x": early.isoformat()}), as_avro({"key": "k", "x": early}, raw)
    assert run(thing(raw), *payloads).passed["thing"]["x"].astype(np.int64).tolist() == [-1, -1]


def test_a_reason_is_short_however_long_the_value_that_it_is_about() -> None:
    sent = {**avro.to_json(avro.EXAMPLE), "choice": "x" * 100_000}
    failed = run(EVERY, json.dumps({"event": "every", **sent}).encode()).failed
    assert len(failed[0].reason) <= 200


def test_the_arrival_is_a_column() -> None:
    batch = run(thing(one_schema()), as_json("thing", {"key": "k"})).passed["thing"]
    assert batch["arrived"].tolist() == [dt.datetime(2023, 11, 14, 22, 13, 20)]
