"""From bytes to rows of a known event type, still encoded: envelope, plain JSON, Avro binary, gzip."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from stream_app.model.record import Code, Failure, IntVector
from stream_app.model.records import Payloads
from stream_app.pipeline.readers.payload_checks import JSON_STARTS, problem
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.user_code.user_calls import truncated
from stream_app.pipeline.values.schema import Schema

STAGE = "decode"
_GZIP = b"\x1f\x8b"
_AVRO = b"\xc3\x01"  # Avro single-object encoding: marker, then 8 bytes of fingerprint
# The first bytes of JSON values that are no object.
_OTHER_JSON = frozenset(bytes([byte]) for byte in b'["-0123456789tfn')
_NO_DETAIL = msgspec.Raw()


class _Frame(msgspec.Struct, rename={"detail_type": "detail-type"}, gc=False):
    """As much of a JSON record as says what it is."""

    detail_type: str | None = None
    detail: msgspec.Raw = _NO_DETAIL
    event: str | None = None
    id: Any = None


@dataclass(slots=True)
class EncodedRows:
    """Rows of one event type: source row, body, the Avro writer's schema (None: JSON), the envelope's id.

    `usual_rows` and `usual` are further rows, which were read at once: Structs of `FastPath`, `enveloped` or not.
    """

    event: str
    usual_rows: IntVector = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    usual: list[Any] = field(default_factory=list)
    enveloped: bool = False
    rows: list[int] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    writers: list[Schema | None] = field(default_factory=list)
    envelope_ids: list[str | None] = field(default_factory=list)

    def add(self, row: int, body: Any, writer: Schema | None, envelope_id: str | None) -> None:
        """Append one row."""
        self.rows.append(row)
        self.bodies.append(body)
        self.writers.append(writer)
        self.envelope_ids.append(envelope_id)


_frame = msgspec.json.Decoder(_Frame)
_any_value = msgspec.json.Decoder(msgspec.Raw)


def decode(
    payloads: Payloads, registry: Registry, max_bytes: int
) -> tuple[dict[str, EncodedRows], list[Failure]]:
    """Group records' payloads by event type in order of arrival; what cannot be read is a Failure.

    `max_bytes` bounds a record before and after it is unpacked, so that a small gzip cannot fill the memory.
    """
    items = registry.usual.read(payloads, max_bytes)
    kinds = set(map(type, items))
    found = _usual(items, kinds, registry)
    failed: list[Failure] = []
    for row, sent in _others(items) if bytes in kinds else ():
        data = _gunzip(row, sent, max_bytes) if sent[:2] == _GZIP else sent
        if isinstance(data, Failure):
            failed.append(data)
            continue
        if len(data) > max_bytes:
            failed.append(_too_large(row, len(data), max_bytes))
            continue
        failure = _one(row, data, registry, found)
        if failure is not None:
            failed.append(failure)
    return found, failed


def _usual(items: list[Any], kinds: set[type[Any]], registry: Registry) -> dict[str, EncodedRows]:
    """What was read at once, by event; nearly always all of it is of one. `kinds` are the types of the items."""
    form, found = registry.usual, {}
    for kind in kinds & form.events.keys():
        rows, some = np.arange(len(items)), items
        if len(kinds) > 1:
            rows = np.array([at for at, item in enumerate(items) if type(item) is kind], dtype=np.int64)
            some = [items[row] for row in rows.tolist()]
        event = form.events[kind]
        found[event] = EncodedRows(event, rows, some, kind in form.enveloped)
    return found


def _others(items: list[Any]) -> list[tuple[int, bytes]]:
    return [(row, item) for row, item in enumerate(items) if type(item) is bytes]


def _one(row: int, data: bytes, registry: Registry, found: dict[str, EncodedRows]) -> Failure | None:
    if data[:2] == _AVRO:
        return _avro(row, data, registry, found)
    if not data or data[0] not in JSON_STARTS:
        return Failure(row, STAGE, Code.UNDECODABLE, _unknown_form(data))
    if (wrong := problem(data)) is not None:
        return Failure(row, STAGE, Code.UNDECODABLE, wrong)
    try:
        frame = _frame.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = f"not a JSON object of a known form: {truncated(str(error))}"
        return Failure(row, STAGE, Code.UNDECODABLE, reason)
    if frame.detail_type is None:
        return _add(row, frame.event, data, None, registry, found)
    if frame.detail is _NO_DETAIL:
        event = truncated(frame.detail_type)
        return Failure(row, STAGE, Code.UNDECODABLE, "the envelope has no detail", event)
    envelope_id = frame.id if isinstance(frame.id, str) else None
    return _add(row, frame.detail_type, frame.detail, envelope_id, registry, found)


def _unknown_form(data: bytes) -> str:
    if data[:1] in _OTHER_JSON and problem(data) is None and _is_json(data):
        return "JSON, but not an object"
    return "neither JSON, nor Avro single-object, nor gzip"


def _is_json(data: bytes) -> bool:
    try:
        _any_value.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def _add(
    row: int,
    event: str | None,
    body: Any,
    envelope_id: str | None,
    registry: Registry,
    found: dict[str, EncodedRows],
) -> Failure | None:
    if event is None:
        return Failure(row, STAGE, Code.UNKNOWN_SCHEMA, "neither detail-type nor event says what it is")
    if event not in registry.codecs:
        return Failure(row, STAGE, Code.UNKNOWN_SCHEMA, f"no event type {truncated(event)!r} is declared")
    found.setdefault(event, EncodedRows(event)).add(row, body, None, envelope_id)
    return None


def _avro(row: int, data: bytes, registry: Registry, found: dict[str, EncodedRows]) -> Failure | None:
    fingerprint = data[2:10].hex()
    known = registry.writers.get(fingerprint)
    if known is None:
        return Failure(
            row, STAGE, Code.UNKNOWN_SCHEMA, f"no schema has fingerprint {fingerprint}", None, fingerprint
        )
    event, writer = known
    found.setdefault(event, EncodedRows(event)).add(row, data[10:], writer, None)
    return None


def _gunzip(row: int, data: bytes, max_bytes: int) -> bytes | Failure:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacker.decompress(data, max_bytes + 1)
    except zlib.error as error:
        return Failure(row, STAGE, Code.UNDECODABLE, f"broken gzip: {error}")
    if len(unpacked) > max_bytes:
        return _too_large(row, len(unpacked), max_bytes)
    if not unpacker.eof:
        return Failure(row, STAGE, Code.UNDECODABLE, "broken gzip: it ends too early")
    if unpacker.unused_data:
        return Failure(row, STAGE, Code.UNDECODABLE, "broken gzip: bytes are left over")
    return unpacked


def _too_large(row: int, size: int, max_bytes: int) -> Failure:
    return Failure(row, STAGE, Code.TOO_LARGE, f"{size} bytes or more, app.max_record_bytes is {max_bytes}")
