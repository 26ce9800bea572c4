"""A record's payload as a message (event, fields, envelope), and the lineage that it carries when sent again."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from stream_app.aws.request_sizes import SOURCE
from stream_app.pipeline.registry import Codec, Registry
from stream_app.pipeline.values.schema import IDENTITY, TEXT
from stream_app.pipeline.values.time_text import instant_text
from stream_app.pipeline.values.violation import ViolationError
from stream_app.recovery.bounded import decoded
from stream_app.recovery.repair.file import EVENT, Repair
from stream_app.recovery.repair.steps import Unrepaired, matches, repaired

# As a resource of the envelope: EventBridge and the Pipe carry it along, and it is none of the event's fields.
_MARK = "stream-app:redrive:"
_GZIP, _AVRO = b"\x1f\x8b", b"\xc3\x01"
_MOST_BYTES = 10 * 1_048_576  # as long as Kinesis takes a record; a gzip that holds more is left packed
_LONGEST_KEY = 256
_DIGITS = 3  # of an attempt's number; a device may write anything into its resources


class Lineage(NamedTuple):
    """Where a record that is sent again comes from: its first failure's key, and how often it was sent again."""

    root: str
    attempt: int

    @property
    def resource(self) -> str:
        """As a resource of an envelope."""
        return f"{_MARK}{self.attempt}:{self.root}"


@dataclass(frozen=True, slots=True)
class Message:
    """What a record says. `envelope` are the other attributes of AWS's envelope, None where it came without."""

    event: str | None
    detail: Mapping[str, Any]
    envelope: Mapping[str, Any] | None = None

    @property
    def resources(self) -> list[str]:
        """The envelope's resources: the device's key, and what follows it."""
        found = (self.envelope or {}).get("resources")
        return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []

    @property
    def envelope_id(self) -> str | None:
        """The envelope's own id."""
        found = (self.envelope or {}).get("id")
        return found if isinstance(found, str) and found else None

    @property
    def lineage(self) -> Lineage | None:
        """What was written into it when it was sent again, None where it never was."""
        return next((found for one in self.resources if (found := _lineage(one)) is not None), None)


def _lineage(resource: str) -> Lineage | None:
    attempt, colon, root = resource.removeprefix(_MARK).partition(":")
    number = attempt.isascii() and attempt.isdigit() and len(attempt) <= _DIGITS
    if not resource.startswith(_MARK) or not colon or not number:
        return None
    return Lineage(root, int(attempt))


def read(data: bytes, registry: Registry) -> Message | None:
    """The message in a record's bytes: envelope, plain JSON, gzip of either, Avro of a known schema; else None."""
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
        unpacked = unpacker.decompress(data, _MOST_BYTES)
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
    # Bytes as base64, times as ISO-8601: the JSON form that the pipeline reads as the same values.
    for at, _, time in codec.times:
        values[at] = None if values[at] is None else instant_text(values[at], time.per_second)
    return Message(
        event, {field.name: value for field, value in zip(codec.schema.fields, values, strict=True)}
    )


def mended(message: Message, repair: Repair) -> Message | Unrepaired | None:
    """The message after a repair; None where its conditions do not hold."""
    document = {**message.detail, EVENT: message.event}
    if not matches(document, repair):
        return None
    found = repaired(document, repair)
    if isinstance(found, Unrepaired):
        return found
    event = found.pop(EVENT, None)
    if event is not None and not isinstance(event, str):
        return Unrepaired(f"{EVENT} is no text")
    return replace(message, event=event, detail=found)


def codec_of(message: Message, registry: Registry) -> Codec | None:
    """How the pipeline reads the message; None where its event type is not declared."""
    return registry.codecs.get(message.event) if message.event is not None else None


def device(message: Message, registry: Registry, partition_key: str) -> str:
    """The device's key, which orders its records: the event's own, or the partition key that the record came with."""
    codec = codec_of(message, registry)
    key = message.detail.get(codec.event.key) if codec is not None else None
    return key if isinstance(key, str) and 0 < len(key) <= _LONGEST_KEY else partition_key


def event_id(message: Message, registry: Registry) -> str | None:
    """The id by which the pipeline knows a repeat of this event, None where it has none."""
    codec = codec_of(message, registry)
    if codec is None or codec.event.id not in {field.name for field in codec.schema.fields}:
        return None
    given = message.detail.get(codec.event.id)
    if given is not None:
        return str(given)
    return message.envelope_id if _takes_text(codec) else None


def identified(message: Message, registry: Registry, id: str) -> Message:
    """The message with an id of its own, where its type has a field for one and the device left it out.

    It is the envelope's where it had one, as the pipeline would take it, else `id`: so that the pipeline can tell
    that a second copy is a repeat, also where a bus gives each copy an envelope of its own.
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
    """The message in AWS's form, its lineage among the resources; an envelope that it came in is kept as it was."""
    fresh = {
        "version": "0",
        "id": id,
        "source": SOURCE,
        "account": "000000000000",
        "time": now.replace(microsecond=0),
        "region": region,
    }
    kept = {**fresh, **(message.envelope or {})}
    resources = [key, *_further(message), lineage.resource]
    return msgspec.json.encode(
        {**kept, "detail-type": message.event, "resources": resources, "detail": message.detail}
    )


def further(message: Message, lineage: Lineage) -> list[str]:
    """The resources after the device's key: those that the message came with, then the lineage."""
    return [*_further(message), lineage.resource]


def _further(message: Message) -> list[str]:
    return [one for one in message.resources[1:] if _lineage(one) is None]


def as_it_came(message: Message) -> bytes:
    """A repaired message in the form in which it came: its envelope, or plain JSON (for Avro too)."""
    if message.envelope is None:
        return msgspec.json.encode({**message.detail, "event": message.event})
    return msgspec.json.encode({**message.envelope, "detail-type": message.event, "detail": message.detail})
