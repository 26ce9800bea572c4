"""Encoded rows become columns of the current schema, for every writer version and encoding."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given

from stream_app.model.record import Code
from tests import avro
from tests.event_cases import EVERY, codes, column, one_schema, run, thing
from tests.samples import as_avro, as_json
from tests.support import outcomes_of

# ---- JSON and Avro


@given(avro.records)
def test_avro_and_json_give_the_same_columns(fields: dict[str, Any]) -> None:
    binary = run(EVERY, as_avro(fields, avro.SCHEMA))
    text = run(EVERY, msgspec.json.encode({"event": "every", **avro.to_json(fields)}))
    assert not binary.failed
    assert outcomes_of(text) == outcomes_of(binary)


@given(avro.records)
def test_a_time_in_json_may_be_a_number_of_ticks(fields: dict[str, Any]) -> None:
    numbers = {name: avro.as_number(fields[name], unit) for name, unit in avro.UNITS.items()}
    binary = run(EVERY, as_avro(fields, avro.SCHEMA))
    text = run(EVERY, as_json("every", {**avro.to_json(fields), **numbers}))
    assert outcomes_of(text) == outcomes_of(binary)


@given(avro.records)
def test_columns_hold_the_values_that_were_sent(fields: dict[str, Any]) -> None:
    batch = run(EVERY, as_avro(fields, avro.SCHEMA)).passed["every"]
    for name in ("flag", "small", "large", "double", "text", "choice"):
        assert batch[name].tolist() == [fields[name]]
    for name in ("many", "named", "maybe_large", "maybe_flag"):
        assert batch.exact(name).tolist() == [fields[name]]
    assert batch["single"].tolist() == [avro.single(fields["single"])]
    assert batch["millis"].dtype == np.dtype("datetime64[ms]")
    assert batch["micros"].dtype == np.dtype("datetime64[us]")
    assert int(batch["millis"][0].astype(np.int64)) == avro.as_number(fields["millis"], "ms")
    assert int(batch["micros"][0].astype(np.int64)) == avro.as_number(fields["micros"], "us")
    assert batch["identity"].tolist() == [str(fields["identity"])]
    assert batch["price"].tolist() == [f"{fields['price']:.2f}"]
    assert json.loads(json.dumps(batch["place"][0])) == batch["place"][0]


def test_columns_have_their_types_even_without_rows() -> None:
    nullable = {"maybe_flag": np.float64, "maybe_small": np.float64, "maybe_single": np.float64}
    kinds = {"flag": np.bool_, "small": np.int64, "single": np.float64, "text": object, **nullable}
    result = run(EVERY, as_avro(avro.EXAMPLE, avro.SCHEMA))
    batch = result.passed["every"]
    assert {name: batch[name].dtype for name in kinds} == {
        name: np.dtype(kind) for name, kind in kinds.items()
    }
    columns = [name for name in batch.columns if not name.startswith("exact.")]
    assert columns == ["key", *avro.TYPES, "arrived"]
    assert batch["exact.maybe_flag"].dtype == np.bool_
    assert batch["exact.maybe_large"].dtype == np.int64


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
    assert np.isnan(column(registry, "count", raw)[0])


@pytest.mark.parametrize("raw", [as_avro(NEW, V3), as_json("thing", NEW)], ids=["avro", "json"])
def test_additional_fields_of_a_newer_writer_are_ignored(raw: bytes) -> None:
    registry = thing(V2, V3)
    assert column(registry, "temperature", raw) == [5.5]
    assert column(registry, "unit", raw) == ["F"]
    assert column(registry, "exact.count", raw) == [2**53 + 1]
    assert "later" not in run(registry, raw).passed["thing"]


def test_the_name_of_a_field_takes_precedence_over_its_aliases() -> None:
    assert column(thing(V2), "temperature", as_json("thing", {"key": "k", "temp": 1, "temperature": 2})) == [
        2.0
    ]
    assert column(thing(V2), "temperature", as_json("thing", {"key": "k", "t": 1})) == [1.0]


def test_a_value_under_an_alias_is_validated() -> None:
    assert codes(thing(V2), as_json("thing", {"key": "k", "temp": "hot"})) == [
        (Code.SCHEMA_VIOLATION, "field temperature: expected a number of 64 bits, found text")
    ]
    assert codes(thing(V2), as_json("thing", {"key": "k"})) == [
        (Code.SCHEMA_VIOLATION, "field temperature: expected a value, found none")
    ]


def test_a_writer_without_a_stored_schema_is_unknown() -> None:
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
def test_json_and_avro_give_the_same_default(avro_type: Any, default: Any, held: Any) -> None:
    old = one_schema()
    new = one_schema({"name": "x", "type": avro_type, "default": default})
    registry = thing(new, old)
    assert column(registry, "x", as_avro({"key": "k"}, old), as_json("thing", {"key": "k"})) == [held, held]


def test_the_default_of_a_time_is_a_number_of_milliseconds() -> None:
    new = one_schema({"name": "x", "type": {"type": "long", "logicalType": "timestamp-millis"}, "default": 5})
    registry = thing(new, one_schema())
    result = run(registry, as_avro({"key": "k"}, one_schema()), as_json("thing", {"key": "k"}))
    assert result.passed["thing"]["x"].astype(np.int64).tolist() == [5, 5]
