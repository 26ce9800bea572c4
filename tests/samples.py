"""Two event types that use every declaration of `Event`, their records, and Hypothesis strategies for them."""

from __future__ import annotations

import gzip
import io
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import fastavro
import msgspec
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from anomaly.detector import FloatMatrix, FloatVector, Keep, Times
from stream_app.model.event import Event, Range, Rate, Stuck, Window
from stream_app.model.record import Batch, Mask, Record
from stream_app.pipeline.registry import Registry
from stream_app.testing import record

T = TypeVar("T")
START = 1_480_550_400_000  # 2016-12-01T00:00:00Z
HOUR = 3_600_000
MAX_BYTES = 4_096
_TIME = {"type": "long", "logicalType": "timestamp-millis"}


class Drift:
    """A minimal detector: scores a value by its distance from the mean of the device's earlier values."""

    threshold = 25.0

    def __init__(self, features: Sequence[str] = ("value",)) -> None:
        self._known: dict[str, tuple[int, float]] = {}

    def process_many(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector:
        scores = np.zeros(len(keys))
        for at, (key, value) in enumerate(zip(keys, X[:, 0].tolist(), strict=True)):
            count, mean = self._known.get(key, (0, 0.0))
            if value == value:  # not NaN
                scores[at] = abs(value - mean) if count > 1 else 0.0
                self._known[key] = count + 1, mean + (value - mean) / (count + 1)
        return scores

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode(self._known)

    def restore(self, state: bytes, keep: Keep = lambda _key: True) -> None:
        known = msgspec.msgpack.decode(state, type=dict[str, tuple[int, float]])
        self._known.update({key: value for key, value in known.items() if keep(key)})


def _verify(batch: Batch) -> dict[str, Mask]:
    if "verify raises" in batch["note"].tolist():
        raise ArithmeticError("a rule that cannot be evaluated")
    rules = {"value is at most 100": ~(batch["value"] > 100)}
    if "previous.time" in batch:
        before = batch["previous.time"]
        rules["time is not before the previous time"] = np.isnat(before) | (batch["time"] >= before)
    return rules


def _calculate(batch: Batch) -> dict[str, NDArray[Any]]:
    if "calculate raises" in batch["note"].tolist():
        raise KeyError("a note that cannot be calculated with")
    window = np.nan_to_num(batch["window.value"])
    columns: dict[str, NDArray[Any]] = {
        "doubled": 2 * batch["value"],
        "sum": window[:, 0] + window[:, 1] + window[:, 2],
        "loud": np.array(
            [None if note is None else str(note).upper() for note in batch["note"]], dtype=object
        ),
    }
    if "previous.value" in batch:
        columns["change"] = batch["value"] - batch["previous.value"]
        columns["pause"] = (batch["time"] - batch["previous.time"]) / np.timedelta64(1, "s")
        columns["note_before"] = batch["previous.note"]
    return columns


def schema(name: str) -> dict[str, Any]:
    """Return the Avro schema, which both event types share."""
    return {
        "type": "record",
        "name": name,
        "fields": [
            {"name": "id", "type": ["null", "string"], "default": None},
            {"name": "device", "type": "string"},
            {"name": "time", "type": _TIME},
            {"name": "value", "type": ["null", "double"], "default": None},
            {"name": "level", "type": ["null", "long"], "default": None},
            {"name": "note", "type": ["null", "string"], "default": None},
            {"name": "sent_at", "type": ["null", _TIME], "default": None},
        ],
    }


_WINDOW = Window(("value",), size=3, step=timedelta(hours=1))
READING = Event(
    name="reading",
    key="device",
    required=("device", "time"),
    verify=_verify,
    calculate=_calculate,
    features=("value", "level"),
    detector=Drift,
    sent="sent_at",
    window=_WINDOW,
)
STEP = Event(
    name="step",
    key="device",
    required=("device", "time"),
    verify=_verify,
    calculate=_calculate,
    features=("value",),
    detector=Drift,
    window=_WINDOW,
    previous=("value", "note", "time", "level"),
    checks=(Range("level", high=2.0**60), Rate("value", 60.0), Stuck("value", 3)),
)
EVENTS = {event.name: event for event in (READING, STEP)}
SCHEMAS = {name: schema(name) for name in EVENTS}


def registry() -> Registry:
    """Return a registry of both event types."""
    return Registry.of(EVENTS.values(), {name: [raw] for name, raw in SCHEMAS.items()})


def as_json(event: str, fields: Mapping[str, Any]) -> bytes:
    """Encode fields as plain JSON."""
    return msgspec.json.encode({"event": event, **fields})


def as_envelope(event: str, fields: Mapping[str, Any], envelope_id: str = "e") -> bytes:
    """Encode fields in an EventBridge envelope."""
    return msgspec.json.encode({"version": "0", "id": envelope_id, "detail-type": event, "detail": fields})


def as_avro(fields: Mapping[str, Any], raw: Mapping[str, Any]) -> bytes:
    """Encode fields in Avro's single-object encoding."""
    parsed = fastavro.parse_schema(dict(raw))
    canonical = fastavro.schema.to_parsing_canonical_form(dict(raw))
    mark = bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))
    body = io.BytesIO()
    fastavro.schemaless_writer(body, parsed, dict(fields))
    return b"\xc3\x01" + mark + body.getvalue()


def encoded(event: str, fields: Mapping[str, Any], form: str) -> bytes:
    """Encode fields in one of `FORMS`."""
    match form:
        case "envelope":
            return as_envelope(event, fields, str(fields.get("id") or "e"))
        case "avro":
            return as_avro(fields, SCHEMAS[event])
        case "gzip":
            return gzip.compress(as_json(event, fields), 1, mtime=0)
        case _:
            return as_json(event, fields)


FORMS = ("json", "json", "envelope", "avro", "gzip")
NOTES = (None, None, None, "calm", "verify raises", "calculate raises")
GARBAGE = (b"", b"{", b"\xc3\x01", b"[]", b'{"event": "reading"}', b'{"event": "unknown"}', b"\x1f\x8b\x08")
DEVICES = ("a", "b", "c")

FIELDS = st.fixed_dictionaries(
    {
        "id": st.sampled_from((None, "1", "2", "3", "4", "5")),
        "device": st.sampled_from(DEVICES),
        "time": st.integers(0, 9).map(lambda hour: START + hour * HOUR),
        "value": st.sampled_from((None, 0.1, 0.2, 3.3, 60.0, 99.9, 101.0, -7.25)),
        "level": st.sampled_from((None, 1, 2**60 + 1)),
        "note": st.sampled_from(NOTES),
        "sent_at": st.just(START),
    }
)


def _keyed(event: str, fields: Mapping[str, Any], form: str) -> tuple[str, bytes]:
    return fields["device"], encoded(event, fields, form)


_good = st.builds(_keyed, st.sampled_from(("reading", "step")), FIELDS, st.sampled_from(FORMS))
_payloads = st.one_of(*[_good] * 5, st.tuples(st.just("?"), st.sampled_from(GARBAGE)))


@st.composite
def shards(draw: st.DrawFn, most: int = 24) -> list[Record]:
    """Consecutive records of one shard: some are aggregated, and some arrival times go backwards."""
    data = draw(st.lists(_payloads, min_size=1, max_size=most))
    steps = draw(
        st.lists(st.sampled_from((0, 0, 1, 400, 3_000, -700)), min_size=len(data), max_size=len(data))
    )
    aggregated = draw(st.lists(st.booleans(), min_size=len(data), max_size=len(data)))
    records: list[Record] = []
    arrived, sequence, sub = START + 12 * HOUR, 0, 0
    for (key, payload), step, joined in zip(data, steps, aggregated, strict=True):
        arrived += step
        sequence, sub = (sequence, sub + 1) if joined and records else (sequence + 7, 0)
        records.append(record(payload, sequence, key=key, arrived=arrived, sub=sub))
    return records


@st.composite
def splits(draw: st.DrawFn, items: Sequence[T]) -> list[list[T]]:
    """Items split into consecutive parts, some of which are empty."""
    cuts = sorted(draw(st.lists(st.integers(0, len(items)), max_size=6)))
    return [list(items[a:b]) for a, b in zip([0, *cuts], [*cuts, len(items)], strict=True)]
