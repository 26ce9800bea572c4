"""Missing and invalid values are failures that name the field."""

from __future__ import annotations

import datetime as dt
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.model.record import Code
from tests import avro
from tests.event_cases import EVERY, codes, column, one_schema, run, thing
from tests.samples import START, as_avro, as_envelope, as_json

# ---- Missing values

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


def test_a_required_field_that_avro_lacks_or_that_is_null_is_field_missing() -> None:
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
        (Code.SCHEMA_VIOLATION, "field c: expected a value, found none")
    ]


@pytest.mark.parametrize("required", [(), ("id",)])
@pytest.mark.parametrize("shape", ["plain", "with objects"])
def test_the_envelopes_id_replaces_a_missing_id(required: tuple[str, ...], shape: str) -> None:
    more = (
        [{"name": "day", "type": {"type": "int", "logicalType": "date"}}] if shape == "with objects" else []
    )
    registry = thing(one_schema({"name": "id", "type": ["null", "string"]}, *more), required=required)
    sent = {"key": "k", "day": 1}
    wrapped = as_envelope("thing", sent, "from the bus"), as_envelope("thing", {**sent, "id": "own"}, "no")
    assert column(registry, "id", *wrapped) == ["from the bus", "own"]
    if more:
        assert column(registry, "day", *wrapped) == ["1970-01-02"] * 2


def test_the_envelopes_id_is_not_used_for_a_numeric_id() -> None:
    registry = thing(one_schema({"name": "id", "type": ["null", "long"]}), required=("id",))
    assert codes(registry, as_envelope("thing", {"key": "k"}, "12")) == [(Code.FIELD_MISSING, "id")]


# ---- Invalid values


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
def test_integers_beyond_two_to_the_53_are_exact(value: int) -> None:
    raw = one_schema({"name": "x", "type": "long"}, {"name": "y", "type": ["null", "long"]})
    sent = {"key": "k", "x": value, "y": value}
    for payload in (as_json("thing", sent), as_avro(sent, raw)):
        batch = run(thing(raw), payload).passed["thing"]
        assert (batch["x"].tolist(), batch.exact("y").tolist()) == ([value], [value])
        assert batch["y"].tolist() == [float(value)]


def test_a_time_in_any_zone_is_the_same_instant() -> None:
    raw = one_schema({"name": "x", "type": {"type": "long", "logicalType": "timestamp-millis"}})
    said = ("2016-12-01T00:00:00Z", "2016-12-01T08:00:00+08:00", "2016-12-01 00:00:00.0009Z", START)
    payloads = [as_json("thing", {"key": "k", "x": x}) for x in said]
    values = run(thing(raw), *payloads).passed["thing"]["x"].astype(np.int64).tolist()
    assert values == [START] * 4


def test_a_time_before_1970_is_truncated_like_a_later_one() -> None:
    raw = one_schema({"name": "x", "type": {"type": "long", "logicalType": "timestamp-millis"}})
    early = dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, dt.UTC)
    payloads = as_json("thing", {"key": "k", "x": early.isoformat()}), as_avro({"key": "k", "x": early}, raw)
    assert run(thing(raw), *payloads).passed["thing"]["x"].astype(np.int64).tolist() == [-1, -1]


def test_a_reason_is_short_even_for_a_long_value() -> None:
    sent = {**avro.to_json(avro.EXAMPLE), "choice": "x" * 100_000}
    failed = run(EVERY, json.dumps({"event": "every", **sent}).encode()).failed
    assert len(failed[0].reason) <= 200


def test_the_arrival_is_a_column() -> None:
    batch = run(thing(one_schema()), as_json("thing", {"key": "k"})).passed["thing"]
    assert batch["arrived"].tolist() == [dt.datetime(2023, 11, 14, 22, 13, 20)]
