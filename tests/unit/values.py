"""Helpers that encode records of an event `t` with a field `v` in JSON and Avro, and return their outcome."""

from __future__ import annotations

import datetime as dt
import io
import json
from collections.abc import Mapping
from typing import Any

import fastavro

from stream_app.model.event import Event
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
    """Return the schema with the underlying types in place of logical types."""
    if isinstance(avro, dict):
        return {name: without_logical(item) for name, item in avro.items() if name != "logicalType"}
    return [without_logical(item) for item in avro] if isinstance(avro, list) else avro


def as_avro(raw: Mapping[str, Any], **fields: Any) -> bytes:
    """Encode a record in Avro's single-object encoding; logical types are given as their underlying values."""
    body = io.BytesIO()
    parsed = fastavro.parse_schema(without_logical(raw))
    fastavro.schemaless_writer(body, parsed, {"dev": "a", "id": None, **fields})
    return b"\xc3\x01" + fingerprint_bytes(raw) + body.getvalue()


def raw_avro(raw: Mapping[str, Any], tail: bytes) -> bytes:
    """Encode a record whose fields after `dev` and `id` are the bytes `tail`."""
    return b"\xc3\x01" + fingerprint_bytes(raw) + b"\x02a\x00" + tail


def fingerprint_bytes(raw: Mapping[str, Any]) -> bytes:
    canonical = fastavro.schema.to_parsing_canonical_form(dict(raw))
    return bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))


def as_json(**fields: Any) -> bytes:
    return json.dumps({"event": "t", "dev": "a", **fields}).encode()


def outcome(
    payload: bytes, *schemas: Mapping[str, Any], event: Event = EVENT, arrived: int | None = NOW
) -> Outcome:
    """Return the outcome of one record."""
    return outcomes([payload], event=event, schemas=schemas, arrived=arrived)[0][0]


def stored(payload: bytes, *schemas: Mapping[str, Any], **more: Any) -> Any:
    found = outcome(payload, *schemas, **more)
    assert found["status"] == "stored", found
    return found["values"]["v"]


def parked(payload: bytes, *schemas: Mapping[str, Any], **more: Any) -> str:
    """Return the reason of a record that is parked as SCHEMA_VIOLATION."""
    found = outcome(payload, *schemas, **more)
    assert (found["status"], found["code"]) == ("parked", "SCHEMA_VIOLATION"), found
    reason: str = found["reason"]
    return reason
