"""Laws of values: every type in every place is stored as an independent reading of it; both ways to read agree."""

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


class Meant(NamedTuple):
    """One value: as Avro carries it, as JSON says it, and what a column and a JSON column hold of it."""

    carried: Any
    said: Any
    column: Any
    nested: Any


def same(value: Any) -> Meant:
    return Meant(value, value, value, value)


def an_instant(unit: str, digits: int) -> Callable[[dt.datetime], Meant]:
    def meant(moment: dt.datetime) -> Meant:
        ticks = (moment - EPOCH) // dt.timedelta(**{unit: 1})
        cut = EPOCH + dt.timedelta(**{unit: ticks})
        return Meant(ticks, moment.isoformat() + "Z", cut.replace(tzinfo=dt.UTC), cut.isoformat() + "Z")

    return meant


def a_local_time(moment: dt.datetime) -> Meant:
    cut = moment.replace(microsecond=moment.microsecond // 1_000 * 1_000)
    ticks = (cut - EPOCH) // dt.timedelta(milliseconds=1)
    return Meant(ticks, moment.isoformat(), cut.isoformat(), cut.isoformat())


def a_time_of_day(time: dt.time) -> Meant:
    cut = time.replace(microsecond=time.microsecond // 1_000 * 1_000)
    ticks = ((cut.hour * 60 + cut.minute) * 60 + cut.second) * 1_000 + cut.microsecond // 1_000
    return Meant(ticks, time.isoformat(), cut.isoformat(), cut.isoformat())


def a_date(day: dt.date) -> Meant:
    return Meant((day - EPOCH.date()).days, day.isoformat(), day.isoformat(), day.isoformat())


def a_decimal(unscaled: int) -> Meant:
    text = f"{Decimal(f'{unscaled}e-3'):f}"
    size = unscaled.bit_length() // 8 + 1
    return Meant(unscaled.to_bytes(size, "big", signed=True), text, text, text)


def some_bytes(data: bytes) -> Meant:
    text = base64.b64encode(data).decode()
    return Meant(data, text, text, text)


def a_single(value: float) -> Meant:
    rounded = float(np.float32(value))
    return Meant(value, value, rounded, rounded)


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_moments = st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999_999)).filter(
    lambda moment: moment.year != 1970  # whose numbers may look like seconds
)
TYPES: dict[str, tuple[Any, st.SearchStrategy[Meant]]] = {
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


def defaulted(meant: Meant) -> Any:
    """A value as a schema writes its default."""
    return meant.carried.decode("latin-1") if isinstance(meant.carried, bytes) else meant.carried


def of_both(raw: Any, carried: Any, said: Any) -> list[Any]:
    payload = json.dumps({"event": "t", "dev": "a", "v": said}).encode()
    return [stored(payload, raw), stored(as_avro(raw, v=carried), raw)]


def exactly(value: Any) -> Any:
    """A value with its type and its bits: 1 is neither 1.0 nor true, nor is 0.0 -0.0."""
    return type(value).__name__, value.hex() if isinstance(value, float) else value


@pytest.mark.parametrize("kind", TYPES)
@given(data=st.data())
@settings(max_examples=12)
def test_a_value_is_read_exactly_in_every_position(kind: str, data: st.DataObject) -> None:
    avro, values = TYPES[kind]
    meant = data.draw(values)
    for top in (avro, ["null", avro], [avro, "null"]):
        assert list(map(exactly, of_both(v(top), meant.carried, meant.said))) == [exactly(meant.column)] * 2
    for inner in (avro, ["null", avro]):
        array = v({"type": "array", "items": inner})
        found = of_both(array, [meant.carried], [meant.said])
        assert [exactly(json.loads(text)[0]) for text in found] == [exactly(meant.nested)] * 2
        a_map = v({"type": "map", "values": inner})
        found = of_both(a_map, {"k": meant.carried}, {"k": meant.said})
        assert [exactly(json.loads(text)["k"]) for text in found] == [exactly(meant.nested)] * 2
        rec = v({"type": "record", "name": "R", "fields": [{"name": "x", "type": inner}]})
        found = of_both(rec, {"x": meant.carried}, {"x": meant.said})
        assert [exactly(json.loads(text)["x"]) for text in found] == [exactly(meant.nested)] * 2


@pytest.mark.parametrize("kind", TYPES)
@given(data=st.data())
@settings(max_examples=8)
def test_defaults_and_aliases_give_the_expected_value(kind: str, data: st.DataObject) -> None:
    avro, values = TYPES[kind]
    meant = data.draw(values)
    bare = schema({"name": "other", "type": "int"})
    declared = v(avro, default=defaulted(meant))
    absent = json.dumps({"event": "t", "dev": "a"}).encode()
    found = [stored(absent, declared), stored(as_avro(bare, other=1), declared, bare)]
    assert list(map(exactly, found)) == [exactly(meant.column)] * 2
    inner = {"name": "x", "type": avro, "default": defaulted(meant)}
    nested = v({"type": "record", "name": "R", "fields": [inner]})
    text = stored(json.dumps({"event": "t", "dev": "a", "v": {}}).encode(), nested)
    assert exactly(json.loads(text)["x"]) == exactly(meant.nested)
    older, aliased = schema({"name": "older", "type": avro}), v(avro, aliases=["older"])
    payload = json.dumps({"event": "t", "dev": "a", "older": meant.said}).encode()
    found = [stored(payload, aliased), stored(as_avro(older, older=meant.carried), aliased, older)]
    assert list(map(exactly, found)) == [exactly(meant.column)] * 2


@given(st.data())
@settings(max_examples=60)
def test_unions_keep_the_branch_of_the_value(data: st.DataObject) -> None:
    avro, meant = data.draw(
        st.sampled_from(["string", "long", "double", "boolean"]).flatmap(
            lambda kind: st.tuples(st.just(kind), TYPES[kind][1])
        )
    )
    union = ["null", "string", "long", "double", "boolean"]
    expected = meant.nested if isinstance(meant.nested, str) else json.dumps(meant.nested)
    found = of_both(v(union), meant.carried, meant.said)
    if avro == "double":
        assert [float(text) for text in found] == [meant.nested] * 2
    else:
        assert found == [expected] * 2
