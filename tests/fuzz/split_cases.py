"""Event types and payload generators for the fuzzer `splits`, singly and in combinations."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_app.event_loading import schema_files
from stream_app.events import parcel
from stream_app.events.air_quality import event as air_quality
from stream_app.model.event import Event, Rate, Stuck, Window
from stream_app.model.record import Batch, Mask
from stream_app.pipeline.registry import Registry
from tests import avro, samples
from tests.samples import as_avro, as_envelope, as_json

Json = dict[str, Any]
START = 1_700_000_000_000
ARRIVED = START + 10**10
_DEVICES = ("a", "b", "c")
_DEEP = "nested deeply"
_IDS = ("1", "2", "3", "4", None, "")


@dataclass(frozen=True)
class EventCase:
    """Event types declared together, with their schemas and generators of record fields."""

    events: Mapping[str, Event]
    schemas: Mapping[str, Sequence[Json]]
    fields: Mapping[str, Callable[[random.Random], Json]]

    def registry(self) -> Registry:
        """Compile the schemas into a registry."""
        return Registry.of(self.events.values(), self.schemas)

    def payload(self, rng: random.Random) -> bytes:
        """Return a record, possibly invalid, in one of the supported formats."""
        name = rng.choice(list(self.events))
        fields = self.fields[name](rng)
        match rng.randrange(10):
            case 0 | 1 | 2:
                data = as_envelope(name, fields, rng.choice("123"))
            case 3 | 4:
                schema = rng.choice(self.schemas[name])
                data = _avro_or_json(name, fields, schema)
            case _:
                data = as_json(name, _shuffled(fields, rng))
        levels = rng.choice((1, 60, 61, 62, 63, 64, 65, 900, 1_000))
        data = data.replace(b'"%s"' % _DEEP.encode(), b"[" * levels + b"]" * levels)
        return gzip.compress(data, 1, mtime=0) if rng.random() < 0.1 else data


def _avro_or_json(name: str, fields: Json, schema: Json) -> bytes:
    try:
        return as_avro({**_aliased(fields, schema)}, schema)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return as_json(name, fields)


def _aliased(fields: Json, schema: Json) -> Json:
    """Rename fields to the names used by an older schema."""
    older = {"temperature": "temp"}
    names = {field["name"] for field in schema["fields"]}
    return {older.get(name, name) if name not in names else name: value for name, value in fields.items()}


def _shuffled(fields: Json, rng: random.Random) -> Json:
    if rng.random() < 0.7:
        return fields
    names = list(fields)
    rng.shuffle(names)
    return {name: fields[name] for name in names if rng.random() < 0.9}


def _shipped(name: str) -> list[Json]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in schema_files(name)]


def _air_quality(rng: random.Random) -> Json:
    hour = rng.randrange(20)
    values: Json = {
        name: rng.choice((None, 0, 1, 7.3, 60.25, 5000.1, rng.random() * 100))
        for name in ("pm25", "pm10", "so2", "no2", "co", "o3", "pressure", "dew_point", "rain", "wind_speed")
    }
    return {
        "id": rng.choice(_IDS),
        "station": rng.choice(_DEVICES),
        "time": START + hour * 3_600_000,
        **values,
        rng.choice(("temperature", "temperature", "temp")): rng.choice((None, 1.5, -3)),
        "wind_direction": rng.choice(("N", "SSW", None, "?")),
        "sent_at": rng.choice((None, START)),
    }


def _parcel(rng: random.Random) -> Json:
    return {
        "id": rng.choice(_IDS),
        "parcel": rng.choice(_DEVICES),
        "status": rng.choice(("picked_up", "in_transit", "in_transit", "delivered", "signed", "lost")),
        "time": START + rng.randrange(30) * 1_000,
        "promised": rng.choice((None, START + 10_000)),
        "depot": rng.choice((None, "Zürich", "Oslo")),
    }


def _sample(rng: random.Random) -> Json:
    return {
        "id": rng.choice(_IDS),
        "device": rng.choice(_DEVICES),
        "time": START + rng.randrange(9) * 3_600_000,
        "value": rng.choice((None, 0.1, 0.2, 3.3, 60.0, 99.9, 101.0, -7.25)),
        "level": rng.choice((None, 1, 2**60 + 1)),
        "note": rng.choice(samples.NOTES),
    }


def _every(rng: random.Random) -> Json:
    place = {"name": "x", "height": 1.5, "since": None, "tags": ["a", "é"]}
    fields: Json = {
        "key": rng.choice(_DEVICES),
        "flag": True,
        "small": 1,
        "large": 2**60 + 1,
        "single": 0.1,
        "double": 0.1,
        "text": "é",
        "raw": "AAE=",
        "choice": "RED",
        "four": "AAAAAA==",
        "many": [1, 2],
        "named": {"a": 1.0},
        "place": place,
        "places": [place],
        "choices": {"a": "GREEN"},
        "either": rng.choice((None, "x", 5, [1])),
        "millis": START,
        "micros": "2026-01-01T00:00:00.123456Z",
        "local_millis": "2026-01-01T00:00:00.123",
        "local_micros": START * 1000,
        "day": "2026-01-01",
        "clock_millis": "10:00:00",
        "clock_micros": 5,
        "price": "12.50",
        "identity": f"00000000-0000-0000-0000-00000000000{rng.randrange(3)}",
        "unheard_of": 1.0,
        "wordy": "w",
        "nothing": None,
    }
    optional: dict[str, Any] = {
        "maybe_flag": True,
        "maybe_small": 3,
        "maybe_large": 2**60 + 1,
        "maybe_single": 0.1,
    }
    optional |= {"maybe_text": "t", "maybe_choice": "RED", "maybe_millis": START}
    return fields | {name: value for name, value in optional.items() if rng.random() < 0.5}


def _reductions(batch: Batch) -> dict[str, NDArray[Any]]:
    """Typical user calculations: NumPy reductions along a window, and functions of its columns."""
    window = batch["window.value"]
    if (batch["value"] == 13).any():
        raise ValueError("unsupported value")
    if (batch["value"] == 91.5).any() and (batch["value"] == 1e9).any():
        raise ArithmeticError("rows that fail only in the same batch")
    with np.errstate(all="ignore"):
        return {
            "sum": np.nansum(window, axis=1),
            "mean": window.mean(axis=1),
            "spread": np.nan_to_num(window).std(axis=1),
            "highest": np.fmax.reduce(window, axis=1),
            "power": np.exp(np.nan_to_num(window[:, 1]) / 50) ** 0.3,
            "change": batch["value"] - batch["previous.value"],
        }


def _increases(batch: Batch) -> dict[str, Mask]:
    before = batch["previous.value"]
    return {
        "value is 5 from the last": np.isnan(before) | (np.abs(batch["value"] - before) >= 5),
        "value is a number": ~np.isnan(batch["value"]),
    }


_TIME = {"type": "long", "logicalType": "timestamp-millis"}
_NODE = {
    "type": "record",
    "name": "Node",
    "fields": [
        {"name": "label", "type": "string"},
        {"name": "list", "type": {"type": "array", "items": ["null", "long", "string"]}, "default": []},
    ],
}
_CHAIN = Event(
    name="chain",
    key="device",
    required=("device", "time", "value"),
    verify=_increases,
    calculate=_reductions,
    window=Window(("value", "other"), size=9, step=timedelta(seconds=1)),
    previous=("value", "time", "level"),
    checks=(Rate("value", 60.0), Stuck("other", 2)),
)
_CHAIN_SCHEMA = {
    "type": "record",
    "name": "chain",
    "fields": [
        {"name": "id", "type": ["null", "string"], "default": None},
        {"name": "device", "type": "string"},
        {"name": "time", "type": _TIME, "aliases": ["at", "when"]},
        {"name": "value", "type": "double"},
        {"name": "other", "type": ["null", "float"], "default": None},
        {"name": "level", "type": ["null", "int"], "default": None, "aliases": ["grade"]},
    ],
}
_NESTED = Event(name="nested", key="device", required=("device",))
_NESTED_SCHEMA = {
    "type": "record",
    "name": "nested",
    "fields": [
        {"name": "id", "type": ["null", "string"], "default": None},
        {"name": "device", "type": "string", "aliases": ["dev"]},
        {"name": "node", "type": ["null", _NODE], "default": None},
        {"name": "tags", "type": {"type": "map", "values": "double"}, "default": {}},
        {"name": "count", "type": "long", "default": 7},
    ],
}
_OLDER_NODE = {
    "type": "record",
    "name": "Node",
    "fields": [{"name": "label", "type": "string"}, {"name": "next", "type": ["null", "Node"]}],
}
_OLD_NESTED_SCHEMA = {  # a recursive type
    "type": "record",
    "name": "nested",
    "fields": [
        {"name": "device", "type": "string"},
        {"name": "node", "type": ["null", _OLDER_NODE], "default": None},
    ],
}


def _chain(rng: random.Random) -> Json:
    return {
        "id": rng.choice(_IDS),
        "device": rng.choice(_DEVICES),
        rng.choice(("time", "time", "at")): START + rng.randrange(12) * 1_000,
        "value": rng.choice((13, 91.5, -1, 1e9, rng.random() * 20, rng.random() * 20, rng.random() * 20)),
        "other": rng.choice((None, 0.1, rng.random())),
        rng.choice(("level", "grade")): rng.choice((None, 5)),
    }


def _linked(rng: random.Random) -> Json:
    node: Json = {"label": "", "next": None}
    for _ in range(rng.choice((1, 30, 62, 63, 64, 65, 200))):
        node = {"label": "", "next": node}
    return node


def _nested(rng: random.Random) -> Json:
    return {
        "id": rng.choice(_IDS),
        rng.choice(("device", "device", "dev")): rng.choice(_DEVICES),
        "node": rng.choice((None, {"label": "x", "list": [None, 1, "é"]}, {"label": "x"}, _linked(rng))),
        "tags": rng.choice(({}, {"a": 1.5})),
        **({"unknown": _DEEP} if rng.random() < 0.2 else {}),
    }


def _case(**given: tuple[Event, Sequence[Json], Callable[[random.Random], Json]]) -> EventCase:
    return EventCase(
        {name: event for name, (event, _, _) in given.items()},
        {name: schemas for name, (_, schemas, _) in given.items()},
        {name: fields for name, (_, _, fields) in given.items()},
    )


def only(name: str) -> Registry:
    """Return a registry with a single event type."""
    return next(case.registry() for case in all_cases() if list(case.events) == [name])


def all_cases() -> list[EventCase]:
    """Return cases with one, two and all event types."""
    every_kind = {
        "air_quality": (air_quality.EVENT, _shipped("air_quality"), _air_quality),
        "parcel": (parcel.EVENT, _shipped("parcel"), _parcel),
        "reading": (samples.READING, [samples.SCHEMAS["reading"]], _sample),
        "step": (samples.STEP, [samples.SCHEMAS["step"]], _sample),
        "every": (avro.EVERY, [avro.SCHEMA], _every),
        "chain": (_CHAIN, [_CHAIN_SCHEMA], _chain),
        "nested": (_NESTED, [_NESTED_SCHEMA, _OLD_NESTED_SCHEMA], _nested),
    }
    alone = [_case(**{name: kind}) for name, kind in every_kind.items()]
    pairs = [("air_quality", "parcel"), ("reading", "step"), ("chain", "nested")]
    return [*alone, *(_case(**{n: every_kind[n] for n in pair}) for pair in pairs), _case(**every_kind)]


def without_event_name(data: bytes) -> bytes:
    """Remove `event` and `detail-type` from a JSON record, so that its event type is unknown."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return data
    if not isinstance(found, dict):
        return data
    return msgspec.json.encode({k: v for k, v in found.items() if k not in ("event", "detail-type")})
