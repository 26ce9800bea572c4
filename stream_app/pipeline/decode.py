"""The decode stage: determines each record's event type and format (envelope, plain JSON, Avro, gzip)."""

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

# A body: bytes of Avro, or the JSON of a record or of an envelope's detail.
Body = bytes | msgspec.Raw
# A payload after the fast path: a Struct if it was decoded, otherwise bytes.
Item = Any

STAGE = "decode"
_GZIP = b"\x1f\x8b"
_AVRO = b"\xc3\x01"  # Avro single-object encoding: marker, then 8 bytes of fingerprint
# The first bytes of JSON values other than objects.
_OTHER_JSON = frozenset(bytes([byte]) for byte in b'["-0123456789tfn')
_NO_DETAIL = msgspec.Raw()


class _RecordHeader(msgspec.Struct, rename={"detail_type": "detail-type"}, gc=False):
    """The fields of a JSON record that identify its event type."""

    detail_type: str | None = None
    detail: msgspec.Raw = _NO_DETAIL
    event: str | None = None
    id: object = None


@dataclass(slots=True)
class EncodedRows:
    """Rows of one event type, in two groups.

    `fast_rows` and `fast_structs` are the source rows and values that `FastPath` has decoded, `enveloped` or not. The
    others have a source row, a body, the Avro writer schema (None for JSON), and the id of the envelope.
    """

    event: str
    fast_rows: IntVector = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    fast_structs: list[msgspec.Struct] = field(default_factory=list)
    enveloped: bool = False
    rows: list[int] = field(default_factory=list)
    bodies: list[Body] = field(default_factory=list)
    writers: list[Schema | None] = field(default_factory=list)
    envelope_ids: list[str | None] = field(default_factory=list)

    def add(self, row: int, body: Body, writer: Schema | None, envelope_id: str | None) -> None:
        """Append one row."""
        self.rows.append(row)
        self.bodies.append(body)
        self.writers.append(writer)
        self.envelope_ids.append(envelope_id)


_header_decoder = msgspec.json.Decoder(_RecordHeader)
_any_value = msgspec.json.Decoder(msgspec.Raw)


def decode(
    payloads: Payloads, registry: Registry, max_bytes: int
) -> tuple[dict[str, EncodedRows], list[Failure]]:
    """Group payloads by event type, in order; payloads that cannot be read become failures.

    `max_bytes` limits the size of a record before and after decompression, as a protection against gzip bombs.
    """
    items = registry.fast_path.read(payloads, max_bytes)
    kinds = set[type[Item]](map(type, items))
    found = _fast_rows(items, kinds, registry)
    failed: list[Failure] = []
    for row, sent in _undecoded(items) if bytes in kinds else ():
        data = _gunzip(row, sent, max_bytes) if sent[:2] == _GZIP else sent
        if isinstance(data, Failure):
            failed.append(data)
            continue
        if len(data) > max_bytes:
            failed.append(_too_large(row, len(data), max_bytes))
            continue
        failure = _decode_one(row, data, registry, found)
        if failure is not None:
            failed.append(failure)
    return found, failed


def _fast_rows(items: list[Item], kinds: set[type[Item]], registry: Registry) -> dict[str, EncodedRows]:
    """Return the rows that the fast path has decoded, by event; `kinds` are the types of all items."""
    fast_path, found = registry.fast_path, {}
    for kind in kinds & fast_path.events.keys():
        rows, structs = np.arange(len(items)), items
        if len(kinds) > 1:
            rows = np.array([at for at, item in enumerate(items) if type(item) is kind], dtype=np.int64)
            structs = [items[row] for row in rows.tolist()]
        event = fast_path.events[kind]
        found[event] = EncodedRows(event, rows, structs, kind in fast_path.enveloped)
    return found


def _undecoded(items: list[Item]) -> list[tuple[int, bytes]]:
    return [(row, item) for row, item in enumerate(items) if type(item) is bytes]


def _decode_one(row: int, data: bytes, registry: Registry, found: dict[str, EncodedRows]) -> Failure | None:
    if data[:2] == _AVRO:
        return _avro(row, data, registry, found)
    if not data or data[0] not in JSON_STARTS:
        return Failure(row, STAGE, Code.UNDECODABLE, _unknown_form(data))
    if (reason := problem(data)) is not None:
        return Failure(row, STAGE, Code.UNDECODABLE, reason)
    try:
        header = _header_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = f"not a JSON object of a known form: {truncated(str(error))}"
        return Failure(row, STAGE, Code.UNDECODABLE, reason)
    if header.detail_type is None:
        return _add(row, header.event, data, None, registry, found)
    if header.detail is _NO_DETAIL:
        event = truncated(header.detail_type)
        return Failure(row, STAGE, Code.UNDECODABLE, "the envelope has no detail", event)
    envelope_id = header.id if isinstance(header.id, str) else None
    return _add(row, header.detail_type, header.detail, envelope_id, registry, found)


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
    body: Body,
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
