"""Batches with the highest cost per record, each with clean payloads of the same event type and size."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from stream_app.events.air_quality.event import EVENT as AIR
from stream_app.events.parcel import EVENT as PARCEL
from stream_app.model.event import Event
from stream_app.model.record import Batch
from tests.samples import START, as_avro

Json = dict[str, Any]
MINUTE = 60_000


@dataclass(frozen=True)
class Kind:
    """A worst-case batch: its event type, its payloads, and clean payloads as the baseline.

    `bound` is the maximum allowed ratio of the cost per record to that of a clean record.
    """

    name: str
    event: Event
    payloads: Sequence[bytes]
    clean: Sequence[bytes]
    schemas: Sequence[Json] = field(default_factory=list)
    bound: float = 10.0


def kinds() -> list[Kind]:
    """Build all worst-case batches."""
    return [make(name) for name, make in _KINDS.items()]


def _air(at: int, **more: Any) -> Json:
    fields = {"id": f"i{at}", "station": f"s{at % 12}", "time": START + at * MINUTE, "pm25": 8.0 + at % 7}
    return {
        "event": "air_quality",
        **fields,
        "pm10": 20.0,
        "wind_speed": 1.5,
        "wind_direction": "NNW",
        **more,
    }


def _dumped(rows: Sequence[Mapping[str, Any]]) -> list[bytes]:
    return [json.dumps(row).encode() for row in rows]


def _air_kind(name: str, bad: Callable[[int], bytes], count: int = 4_000) -> Kind:
    clean = _dumped([_air(at) for at in range(count)])
    return Kind(name, AIR, [bad(at) for at in range(count)], clean)


def _time_out_of_range(name: str) -> Kind:
    return _air_kind(name, lambda at: _dumped([_air(at, time="0001-01-01T00:00:00+01:00")])[0])


def _not_json(name: str) -> Kind:
    return _air_kind(name, lambda at: b"\x00" * 300)


def _not_utf8(name: str) -> Kind:
    return _air_kind(name, lambda at: _dumped([_air(at)])[0].replace(b"NNW", b"N\xfcW"))


def _cut_short(name: str) -> Kind:
    return _air_kind(name, lambda at: _dumped([_air(at)])[0][:-1])


def _nested(name: str) -> Kind:
    deep = b"[" * 120 + b"]" * 120
    return _air_kind(name, lambda at: _dumped([_air(at)])[0][:-1] + b',"deep":' + deep + b"}")


def _alternating_formats(name: str) -> Kind:
    def payload(at: int) -> bytes:
        row = _air(at)
        if at % 2:
            return _dumped([row])[0]
        return _dumped([{"detail-type": row.pop("event"), "id": "e", "detail": row}])[0]

    return _air_kind(name, payload)


def _rule_broken(name: str) -> Kind:
    return _air_kind(name, lambda at: _dumped([_air(at, pm25=-1.0)])[0])


def _unknown_wind(name: str) -> Kind:
    return _air_kind(name, lambda at: _dumped([_air(at, wind_direction="up")])[0])


def _every_second_wind_unknown(name: str) -> Kind:
    """The worst case for isolating rows on which `calculate` raises: each valid row is calculated alone."""
    kind = _air_kind(name, lambda at: _dumped([_air(at, wind_direction="up" if at % 2 else "N")])[0])
    return replace(kind, bound=25.0)


def _repeats_of_one(name: str) -> Kind:
    return _air_kind(name, lambda at: _dumped([_air(0)])[0], 8_000)


def _repeats_of_a_failure(name: str) -> Kind:
    def payload(at: int) -> bytes:
        return _dumped([_air(at, id="same", station="s", wind_direction="N" if at == 7_999 else "up")])[0]

    return _air_kind(name, payload, 8_000)


def _gzip_bombs(name: str) -> Kind:
    def payload(at: int) -> bytes:
        return _dumped([_air(at, padding="x" * 200_000)])[0]

    clean = [payload(at) for at in range(200)]
    return Kind(name, AIR, [gzip.compress(data, 1) for data in clean], clean)


def _parcel(at: int, parcel: str, status: str) -> Json:
    return {
        "event": "parcel",
        "id": f"p{at}",
        "parcel": parcel,
        "status": status,
        "time": START + at * MINUTE,
    }


def _parcels_never_picked_up(name: str) -> Kind:
    count = 8_000
    bad = [_parcel(at, "one", "in_transit") for at in range(count)]
    clean = [_parcel(at, "one", "picked_up" if at == 0 else "in_transit") for at in range(count)]
    return Kind(name, PARCEL, _dumped(bad), _dumped(clean))


def _parcels_that_alternate(name: str) -> Kind:
    count = 8_000
    bad = [
        _parcel(at, "one", ("picked_up", "picked_up", "in_transit", "signed")[at % 4]) for at in range(count)
    ]
    clean = [_parcel(at, f"p{at}", "picked_up") for at in range(count)]
    return Kind(name, PARCEL, _dumped(bad), _dumped(clean))


def _schema(*fields: Json) -> Json:
    base = [{"name": "id", "type": "string"}, {"name": "dev", "type": "string"}]
    return {"type": "record", "name": "t", "fields": [*base, *fields]}


_T = Event(name="t", key="dev", required=("id", "dev"))


def _decimals(name: str, value: Callable[[int], str]) -> Kind:
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
    form = '{"event":"t","id":"%d","dev":"a","v":%s}'
    bad = [(form % (at, value(at))).encode() for at in range(1_000)]
    clean = [(form % (at, '"12.34"')).encode() for at in range(1_000)]
    return Kind(name, _T, bad, clean, [_schema({"name": "v", "type": decimal})])


def _decimal_exponents(name: str) -> Kind:
    return _decimals(name, lambda at: f"1e{1_000_000 + at}")


def _decimal_exponents_as_text(name: str) -> Kind:
    return _decimals(name, lambda at: f'"1e{999_999_000 + at}"')


def _decimal_digits(name: str) -> Kind:
    return _decimals(name, lambda at: "1" * 5_000)


def _arrays_of_null(name: str) -> Kind:
    schema = _schema({"name": "v", "type": {"type": "array", "items": "null"}})
    clean = [as_avro({"id": str(at), "dev": "a", "v": [None] * 3}, schema) for at in range(1_000)]
    block = _zigzag(10_000_000) + b"\x00"
    empty = [as_avro({"id": str(at), "dev": "a", "v": []}, schema)[:-1] for at in range(1_000)]
    return Kind(name, _T, [data + block for data in empty], clean, [schema])


def _zigzag(value: int) -> bytes:
    value <<= 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _fails_for_several_rows(batch: Batch) -> dict[str, np.ndarray[Any, Any]]:
    """Raise for every batch of more than one row; this programming error must not stall the shard."""
    if len(batch) > 1:
        raise ValueError("one row at a time")
    return {"length": np.ones(len(batch))}


def _raises_on_several_rows(name: str) -> Kind:
    event = Event(name="t", key="dev", required=("id", "dev"), calculate=_fails_for_several_rows)
    form = '{"event":"t","id":"%d","dev":"a"}'
    payloads = [(form % at).encode() for at in range(1_000)]
    return Kind(name, event, payloads, payloads, [_schema()])


_KINDS: dict[str, Callable[[str], Kind]] = {
    "time out of range": _time_out_of_range,
    "not JSON": _not_json,
    "not UTF-8": _not_utf8,
    "cut short": _cut_short,
    "nested 120 deep": _nested,
    "envelopes and plain JSON in turn": _alternating_formats,
    "a rule broken in each row": _rule_broken,
    "calculate raises on each row": _unknown_wind,
    "calculate raises on every second row": _every_second_wind_unknown,
    "8,000 repeats of one event": _repeats_of_one,
    "8,000 failures of one id": _repeats_of_a_failure,
    "gzip of 200 kB": _gzip_bombs,
    "8,000 events of a parcel never picked up": _parcels_never_picked_up,
    "8,000 events of a parcel, most refused": _parcels_that_alternate,
    "decimals with exponents of a million": _decimal_exponents,
    "the same as text": _decimal_exponents_as_text,
    "decimals of 5,000 digits": _decimal_digits,
    "Avro arrays of 10,000,000 nulls": _arrays_of_null,
    "calculate takes single rows only": _raises_on_several_rows,
}
