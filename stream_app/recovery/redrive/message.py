"""Payloads decoded as messages (event type, fields, envelope), and the lineage that redriven messages contain."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

import msgspec

from stream_app.aws.request_sizes import SOURCE
from stream_app.pipeline.registry import Codec, Registry
from stream_app.pipeline.values.schema import IDENTITY, TEXT
from stream_app.pipeline.values.time_text import instant_text
from stream_app.pipeline.values.violation import ViolationError
from stream_app.recovery.bounded import decoded
from stream_app.recovery.repair.file import EVENT, Repair
from stream_app.recovery.repair.steps import Unrepaired, matches, repaired

# The lineage is one of the envelope's resources: EventBridge and Pipes keep it, and it is not a field of the event.
_MARK = "stream-app:redrive:"
_GZIP, _AVRO = b"\x1f\x8b", b"\xc3\x01"
_MAX_BYTES = 10 * 1_048_576  # Kinesis's maximum record size; larger gzip contents are not decompressed
_MAX_KEY_LENGTH = 256
_MAX_DIGITS = 3  # of an attempt number; a device may write anything into its resources


class Lineage(NamedTuple):
    """The origin of a redriven record: the key of its first failure, and the number of times it was sent again."""

    root: str
    attempt: int

    @property
    def resource(self) -> str:
        """The lineage as a resource of an envelope."""
        return f"{_MARK}{self.attempt}:{self.root}"


@dataclass(frozen=True, slots=True)
class Message:
    """A decoded record. `envelope` has the other attributes of the EventBridge envelope, None without an envelope."""

    event: str | None
    detail: Mapping[str, object]
    envelope: Mapping[str, object] | None = None

    @property
    def resources(self) -> list[str]:
        """The envelope's resources: the device's key, then any others."""
        found = (self.envelope or {}).get("resources")
        return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []

    @property
    def envelope_id(self) -> str | None:
        """The id of the envelope."""
        found = (self.envelope or {}).get("id")
        return found if isinstance(found, str) and found else None

    @property
    def lineage(self) -> Lineage | None:
        """The lineage in the envelope's resources, None if the record was never redriven."""
        return next((found for one in self.resources if (found := _lineage(one)) is not None), None)


def _lineage(resource: str) -> Lineage | None:
    attempt, colon, root = resource.removeprefix(_MARK).partition(":")
    number = attempt.isascii() and attempt.isdigit() and len(attempt) <= _MAX_DIGITS
    if not resource.startswith(_MARK) or not colon or not number:
        return None
    return Lineage(root, int(attempt))


def read(data: bytes, registry: Registry) -> Message | None:
    """Decode a record: envelope, plain JSON, gzip of either, or Avro with a known schema. Otherwise return None."""
    if data.startswith(_GZIP):
        data = _gunzip(data)
    if data.startswith(_AVRO):
        return _from_avro(data, registry)
    try:
        document = decoded(data)
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    event, detail = document.get("detail-type"), document.get("detail")
    if isinstance(event, str) and isinstance(detail, dict):
        return Message(event, detail, {name: document[name] for name in document if name != "detail"})
    event = document.get("event")
    named = event if isinstance(event, str) else None
    codec = registry.codecs.get(named or "")
    if codec is None or "event" not in {field.name for field in codec.schema.fields}:
        document.pop("event", None)
    return Message(named, document)


def _gunzip(data: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacker.decompress(data, _MAX_BYTES)
    except zlib.error:
        return b""
    return unpacked if unpacker.eof and not unpacker.unused_data else b""


def _from_avro(data: bytes, registry: Registry) -> Message | None:
    event, writer = registry.writers.get(data[2:10].hex(), ("", None))
    if writer is None:
        return None
    codec = registry.codecs[event]
    try:
        values = codec.avro[writer.fingerprint](data[10:], None)
    except ViolationError:
        return None
    # Bytes become base64 and times ISO-8601, the JSON form that the pipeline decodes to the same values.
    for at, _, time in codec.times:
        values[at] = None if values[at] is None else instant_text(values[at], time.per_second)
    return Message(
        event, {field.name: value for field, value in zip(codec.schema.fields, values, strict=True)}
    )


def apply_repair(message: Message, repair: Repair) -> Message | Unrepaired | None:
    """Apply a repair to a message; None if the repair's conditions do not match."""
    document = {**message.detail, EVENT: message.event}
    if not matches(document, repair):
        return None
    fields = repaired(document, repair)
    if isinstance(fields, Unrepaired):
        return fields
    event = fields.pop(EVENT, None)
    if event is not None and not isinstance(event, str):
        return Unrepaired(f"{EVENT} is not a text")
    return replace(message, event=event, detail=fields)


def codec_of(message: Message, registry: Registry) -> Codec | None:
    """Return the codec of the message's event type, None if the type is not declared."""
    return registry.codecs.get(message.event) if message.event is not None else None


def device(message: Message, registry: Registry, partition_key: str) -> str:
    """Return the key that orders a device's records: the event's key field, else the partition key."""
    codec = codec_of(message, registry)
    key = message.detail.get(codec.event.key) if codec is not None else None
    return key if isinstance(key, str) and 0 < len(key) <= _MAX_KEY_LENGTH else partition_key


def event_id(message: Message, registry: Registry) -> str | None:
    """Return the id that the pipeline uses for deduplication, None if the message has none."""
    codec = codec_of(message, registry)
    if codec is None or codec.event.id not in {field.name for field in codec.schema.fields}:
        return None
    value = message.detail.get(codec.event.id)
    if value is not None:
        return str(value)
    return message.envelope_id if _takes_text(codec) else None


def with_id(message: Message, registry: Registry, id: str) -> Message:
    """Fill in the id field of a message if its event type has one and the device left it empty.

    The value is the envelope's id, as in the pipeline, else `id`. The pipeline then recognizes a second copy even if
    a bus puts each copy into a new envelope.
    """
    codec = codec_of(message, registry)
    if codec is None or not _takes_text(codec) or message.detail.get(codec.event.id) is not None:
        return message
    return replace(message, detail={**message.detail, codec.event.id: message.envelope_id or id})


def _takes_text(codec: Codec) -> bool:
    return any(f.name == codec.event.id and f.kind in (TEXT, IDENTITY) for f in codec.schema.fields)


def as_envelope(
    message: Message, key: str, lineage: Lineage, *, id: str, now: datetime, region: str
) -> bytes:
    """Encode the message as an EventBridge envelope with the lineage as a resource; keep an existing envelope."""
    defaults = {
        "version": "0",
        "id": id,
        "source": SOURCE,
        "account": "000000000000",
        "time": now.replace(microsecond=0),
        "region": region,
    }
    attributes = {**defaults, **(message.envelope or {})}
    resources = [key, *extra_resources(message, lineage)]
    return msgspec.json.encode(
        {**attributes, "detail-type": message.event, "resources": resources, "detail": message.detail}
    )


def extra_resources(message: Message, lineage: Lineage) -> list[str]:
    """Return the resources that follow the device's key: the message's own, then the lineage."""
    return [*_own_resources(message), lineage.resource]


def _own_resources(message: Message) -> list[str]:
    return [one for one in message.resources[1:] if _lineage(one) is None]


def original_form(message: Message) -> bytes:
    """Encode a repaired message in its original format: envelope or plain JSON (also for Avro)."""
    if message.envelope is None:
        return msgspec.json.encode({**message.detail, "event": message.event})
    return msgspec.json.encode({**message.envelope, "detail-type": message.event, "detail": message.detail})
