"""Property tests: values of every type in every position agree with an independent model, from JSON and Avro."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.values import (
    DATE,
    LOCAL,
    MICROS,
    MILLIS,
    TIME,
    UUID,
    as_avro,
    decimal,
    schema,
    stored,
    v,
)

EPOCH = dt.datetime(1970, 1, 1)


class Example(NamedTuple):
    """One value: its Avro primitive, its JSON form, and the value in its own column and in a JSON column."""

    primitive: Any
    json_value: Any
    column: Any
    nested: Any


def same(value: Any) -> Example:
    return Example(value, value, value, value)


def an_instant(unit: str, digits: int) -> Callable[[dt.datetime], Example]:
    def example(moment: dt.datetime) -> Example:
        ticks = (moment - EPOCH) // dt.timedelta(**{unit: 1})
        cut = EPOCH + dt.timedelta(**{unit: ticks})
        return Example(ticks, moment.isoformat() + "Z", cut.replace(tzinfo=dt.UTC), cut.isoformat() + "Z")

    return example


def a_local_time(moment: dt.datetime) -> Example:
    cut = moment.replace(microsecond=moment.microsecond // 1_000 * 1_000)
    ticks = (cut - EPOCH) // dt.timedelta(milliseconds=1)
    return Example(ticks, moment.isoformat(), cut.isoformat(), cut.isoformat())


def a_time_of_day(time: dt.time) -> Example:
    cut = time.replace(microsecond=time.microsecond // 1_000 * 1_000)
    ticks = ((cut.hour * 60 + cut.minute) * 60 + cut.second) * 1_000 + cut.microsecond // 1_000
    return Example(ticks, time.isoformat(), cut.isoformat(), cut.isoformat())


def a_date(day: dt.date) -> Example:
    return Example((day - EPOCH.date()).days, day.isoformat(), day.isoformat(), day.isoformat())


def a_decimal(unscaled: int) -> Example:
    text = f"{Decimal(f'{unscaled}e-3'):f}"
    size = unscaled.bit_length() // 8 + 1
    return Example(unscaled.to_bytes(size, "big", signed=True), text, text, text)


def some_bytes(data: bytes) -> Example:
    text = base64.b64encode(data).decode()
    return Example(data, text, text, text)


def a_single(value: float) -> Example:
    rounded = float(np.float32(value))
    return Example(value, value, rounded, rounded)


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_moments = st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999_999)).filter(
    lambda moment: moment.year != 1970  # their numbers may look like seconds
)
TYPES: dict[str, tuple[Any, st.SearchStrategy[Example]]] = {
    "boolean": ("boolean", st.booleans().map(same)),
    "int": ("int", st.integers(-(2**31), 2**31 - 1).map(same)),
    "long": ("long", st.integers(-(2**63), 2**63 - 1).map(same)),
    "float": ("float", st.floats(-3e38, 3e38).map(a_single)),
    "double": ("double", st.floats(allow_nan=False, allow_infinity=False).map(same)),
    "string": ("string", _texts.map(same)),
    "bytes": ("bytes", st.binary(max_size=9).map(some_bytes)),
    "fixed": ({"type": "fixed", "name": "F", "size": 3}, st.binary(min_size=3, max_size=3).map(some_bytes)),
    "enum": ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, st.sampled_from("AB").map(same)),
    "timestamp-millis": (MILLIS, _moments.map(an_instant("milliseconds", 3))),
    "timestamp-micros": (MICROS, _moments.map(an_instant("microseconds", 6))),
    "local-timestamp": (LOCAL, _moments.map(a_local_time)),
    "time": (TIME, st.times().map(a_time_of_day)),
    "date": (DATE, st.dates().map(a_date)),
    "decimal": (decimal(30, 3), st.integers(-(10**30) + 1, 10**30 - 1).map(a_decimal)),
    "uuid": (UUID, st.uuids().map(str).map(same)),
    "unknown logical type": ({"type": "int", "logicalType": "furlongs"}, st.integers(-9, 9).map(same)),
}


def defaulted(example: Example) -> Any:
    """Return a value as a schema writes its default."""
    return example.primitive.decode("latin-1") if isinstance(example.primitive, bytes) else example.primitive


def from_both(raw: Any, primitive: Any, json_value: Any) -> list[Any]:
    payload = json.dumps({"event": "t", "dev": "a", "v": json_value}).encode()
    return [stored(payload, raw), stored(as_avro(raw, v=primitive), raw)]


def with_type(value: Any) -> Any:
    """Return a value with its type and bits, so that 1, 1.0 and true differ, as do 0.0 and -0.0."""
    return type(value).__name__, value.hex() if isinstance(value, float) else value


@pytest.mark.parametrize("kind", TYPES)
@given(data=st.data())
@settings(max_examples=12)
def test_a_value_is_read_exactly_in_every_position(kind: str, data: st.DataObject) -> None:
    avro, values = TYPES[kind]
    example = data.draw(values)
    for top in (avro, ["null", avro], [avro, "null"]):
        assert (
            list(map(with_type, from_both(v(top), example.primitive, example.json_value)))
            == [with_type(example.column)] * 2
        )
    for inner in (avro, ["null", avro]):
        array = v({"type": "array", "items": inner})
        found = from_both(array, [example.primitive], [example.json_value])
        assert [with_type(json.loads(text)[0]) for text in found] == [with_type(example.nested)] * 2
        a_map = v({"type": "map", "values": inner})
        found = from_both(a_map, {"k": example.primitive}, {"k": example.json_value})
        assert [with_type(json.loads(text)["k"]) for text in found] == [with_type(example.nested)] * 2
        rec = v({"type": "record", "name": "R", "fields": [{"name": "x", "type": inner}]})
        found = from_both(rec, {"x": example.primitive}, {"x": example.json_value})
        assert [with_type(json.loads(text)["x"]) for text in found] == [with_type(example.nested)] * 2


@pytest.mark.parametrize("kind", TYPES)
@given(data=st.data())
@settings(max_examples=8)
def test_defaults_and_aliases_give_the_expected_value(kind: str, data: st.DataObject) -> None:
    avro, values = TYPES[kind]
    example = data.draw(values)
    bare = schema({"name": "other", "type": "int"})
    declared = v(avro, default=defaulted(example))
    absent = json.dumps({"event": "t", "dev": "a"}).encode()
    found = [stored(absent, declared), stored(as_avro(bare, other=1), declared, bare)]
    assert list(map(with_type, found)) == [with_type(example.column)] * 2
    inner = {"name": "x", "type": avro, "default": defaulted(example)}
    nested = v({"type": "record", "name": "R", "fields": [inner]})
    text = stored(json.dumps({"event": "t", "dev": "a", "v": {}}).encode(), nested)
    assert with_type(json.loads(text)["x"]) == with_type(example.nested)
    older, aliased = schema({"name": "older", "type": avro}), v(avro, aliases=["older"])
    payload = json.dumps({"event": "t", "dev": "a", "older": example.json_value}).encode()
    found = [stored(payload, aliased), stored(as_avro(older, older=example.primitive), aliased, older)]
    assert list(map(with_type, found)) == [with_type(example.column)] * 2


@given(st.data())
@settings(max_examples=60)
def test_unions_keep_the_branch_of_the_value(data: st.DataObject) -> None:
    avro, example = data.draw(
        st.sampled_from(["string", "long", "double", "boolean"]).flatmap(
            lambda kind: st.tuples(st.just(kind), TYPES[kind][1])
        )
    )
    union = ["null", "string", "long", "double", "boolean"]
    expected = example.nested if isinstance(example.nested, str) else json.dumps(example.nested)
    found = from_both(v(union), example.primitive, example.json_value)
    if avro == "double":
        assert [float(text) for text in found] == [example.nested] * 2
    else:
        assert found == [expected] * 2
