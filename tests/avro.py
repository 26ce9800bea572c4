"""An event with a field of every Avro type, and values for it."""

from __future__ import annotations

import datetime as dt
import struct
from base64 import b64encode
from decimal import Decimal
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from stream_app.model.event import Event

PLACE = {
    "type": "record",
    "name": "Place",
    "fields": [
        {"name": "name", "type": "string"},
        {"name": "height", "type": ["null", "float"]},
        {
            "name": "since",
            "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}],
            "default": None,
        },
        {"name": "tags", "type": {"type": "array", "items": "string"}, "default": ["new"]},
    ],
}
TYPES: dict[str, Any] = {
    "flag": "boolean",
    "small": "int",
    "large": "long",
    "single": "float",
    "double": "double",
    "text": "string",
    "raw": "bytes",
    "choice": {"type": "enum", "name": "Choice", "symbols": ["RED", "GREEN"]},
    "four": {"type": "fixed", "name": "Four", "size": 4},
    "many": {"type": "array", "items": "long"},
    "named": {"type": "map", "values": "double"},
    "place": PLACE,
    "places": {"type": "array", "items": "Place"},
    "choices": {"type": "map", "values": "Choice"},
    "either": ["null", "string", "long", {"type": "array", "items": "int"}],
    "millis": {"type": "long", "logicalType": "timestamp-millis"},
    "micros": {"type": "long", "logicalType": "timestamp-micros"},
    "local_millis": {"type": "long", "logicalType": "local-timestamp-millis"},
    "local_micros": {"type": "long", "logicalType": "local-timestamp-micros"},
    "day": {"type": "int", "logicalType": "date"},
    "clock_millis": {"type": "int", "logicalType": "time-millis"},
    "clock_micros": {"type": "long", "logicalType": "time-micros"},
    "price": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2},
    "identity": {"type": "string", "logicalType": "uuid"},
    "unheard_of": {"type": "double", "logicalType": "furlongs"},
    "wordy": {"type": "string", "avro.java.string": "String"},
    "maybe_flag": ["null", "boolean"],
    "maybe_small": ["null", "int"],
    "maybe_large": ["null", "long"],
    "maybe_single": ["null", "float"],
    "maybe_text": ["string", "null"],
    "maybe_choice": ["null", "Choice"],
    "maybe_place": ["null", "Place"],
    "maybe_raw": ["null", "bytes"],
    "maybe_millis": ["null", {"type": "long", "logicalType": "timestamp-millis"}],
    "maybe_identity": ["null", {"type": "string", "logicalType": "uuid"}],
    "nothing": "null",
}
SCHEMA = {
    "type": "record",
    "name": "every",
    "namespace": "tests",
    "fields": [
        {"name": "key", "type": "string"},
        *({"name": name, "type": avro} for name, avro in TYPES.items()),
    ],
}
EVERY = Event(name="every", key="key", id="identity")

_FIRST, _LAST = dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30)
_longs = st.integers(-(2**63), 2**63 - 1)
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_bytes = st.binary(max_size=6)
_instants = st.datetimes(_FIRST, _LAST, timezones=st.just(dt.UTC))
_singles = st.floats(width=32, allow_nan=False, allow_infinity=False)
_doubles = st.floats(allow_nan=False, allow_infinity=False)
_choices = st.sampled_from(["RED", "GREEN"])
_places = st.fixed_dictionaries(
    {
        "name": _texts,
        "height": st.none() | _doubles.filter(lambda x: abs(x) < 1e38),
        "since": st.none() | _instants,
        "tags": st.lists(_texts, max_size=2),
    }
)
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "flag": st.booleans(),
    "small": st.integers(-(2**31), 2**31 - 1),
    "large": _longs,
    "single": _doubles.filter(lambda x: abs(x) < 1e38),
    "double": _doubles,
    "text": _texts,
    "raw": _bytes,
    "choice": _choices,
    "four": st.binary(min_size=4, max_size=4),
    "many": st.lists(_longs, max_size=3),
    "named": st.dictionaries(_texts, _doubles, max_size=2),
    "place": _places,
    "places": st.lists(_places, max_size=2),
    "choices": st.dictionaries(_texts, _choices, max_size=2),
    "either": st.none() | _texts | _longs | st.lists(st.integers(-5, 5), max_size=2),
    "millis": _instants,
    "micros": _instants,
    "local_millis": st.datetimes(_FIRST, _LAST),
    "local_micros": st.datetimes(_FIRST, _LAST),
    "day": st.dates(),
    "clock_millis": st.times(),
    "clock_micros": st.times(),
    "price": st.decimals(-(10**9), 10**9, places=2) | st.integers(-99, 99).map(Decimal),
    "identity": st.uuids(),
    "unheard_of": _doubles,
    "wordy": _texts,
    "maybe_flag": st.none() | st.booleans(),
    "maybe_small": st.none() | st.integers(-9, 9),
    "maybe_large": st.none() | _longs,
    "maybe_single": st.none() | _singles,
    "maybe_text": st.none() | _texts,
    "maybe_choice": st.none() | _choices,
    "maybe_place": st.none() | _places,
    "maybe_raw": st.none() | _bytes,
    "maybe_millis": st.none() | _instants,
    "maybe_identity": st.none() | st.uuids(),
    "nothing": st.none(),
}
# Records as Python values that fastavro can write.
records: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries({"key": st.just("k"), **_VALUES})

_NOON = dt.datetime(2016, 12, 1, 12)
EXAMPLE: dict[str, Any] = {
    **{name: None for name, avro in TYPES.items() if avro == "null" or "null" in avro},
    "key": "k",
    "flag": True,
    "small": 1,
    "large": 2,
    "single": 0.5,
    "double": 0.1,
    "text": "t",
    "raw": b"r",
    "choice": "RED",
    "four": b"four",
    "many": [1],
    "named": {"a": 1.0},
    "place": {"name": "p", "height": 1.5, "since": None, "tags": []},
    "places": [],
    "choices": {},
    "millis": _NOON.replace(tzinfo=dt.UTC),
    "micros": _NOON.replace(tzinfo=dt.UTC),
    "local_millis": _NOON,
    "local_micros": _NOON,
    "day": _NOON.date(),
    "clock_millis": _NOON.time(),
    "clock_micros": _NOON.time(),
    "price": Decimal("1.50"),
    "identity": UUID(int=7),
    "unheard_of": 2.0,
    "wordy": "w",
}


def to_json(value: Any) -> Any:
    """Return a fastavro value as JSON: bytes as base64, times as ISO 8601, decimals as text."""
    match value:
        case dict():
            return {name: to_json(item) for name, item in value.items()}
        case list():
            return [to_json(item) for item in value]
        case bytes():
            return b64encode(value).decode()
        case dt.datetime() | dt.date() | dt.time():
            return value.isoformat().replace("+00:00", "Z")
        case Decimal() | UUID():
            return str(value)
        case _:
            return value


def as_number(value: dt.datetime | dt.date | dt.time, unit: str) -> int:
    """Return a time as the number that Avro stores, in `days`, `ms` or `us`, rounded down."""
    if unit == "days":
        assert isinstance(value, dt.date)
        return value.toordinal() - dt.date(1970, 1, 1).toordinal()
    if isinstance(value, dt.time):
        value = dt.datetime.combine(dt.date(1970, 1, 1), value)
    assert isinstance(value, dt.datetime)
    micros = (value.replace(tzinfo=None) - dt.datetime(1970, 1, 1)) // dt.timedelta(microseconds=1)
    return micros if unit == "us" else micros // 1_000


UNITS = {
    "millis": "ms",
    "micros": "us",
    "local_millis": "ms",
    "local_micros": "us",
    "day": "days",
    "clock_millis": "ms",
    "clock_micros": "us",
}


def single(value: float) -> float:
    """Return the nearest 32-bit float."""
    return float(struct.unpack("f", struct.pack("f", value))[0])
