"""Outgoing records and their encoders: the EventBridge envelope, plain JSON, gzip and Avro single-object."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

import fastavro
import fastavro.schema
import fastavro.validation
import msgspec

from stream_app.model.record import Code

REPEATED: Final = "repeated"

Route = Literal["bus", "stream"]
Expectation = Code | Literal["repeated"] | None
# The fields of an event. Their values can be of any type, because devices send invalid events too.
Detail = Mapping[str, Any]
# An Avro schema as decoded JSON.
Schema = Mapping[str, Any]
# Encodes a detail, given the name of its event type.
Encode = Callable[[str, Detail], bytes]

PARTITION_KEY_LENGTH: Final = 256  # characters, the limit of Kinesis
ENVELOPE, JSON, GZIP, AVRO, AVRO_PAST = "envelope", "json", "gzip", "avro", "avro-past"


class OutgoingRecord(NamedTuple):
    """A record that a device sends.

    `detail` are the fields of an event, or bytes that are written to the stream unchanged. `encoding` applies to the
    stream only; the bus always uses the envelope. `expected` is the outcome that the application should report: a
    failure code, "repeated", or None for a valid record. `time` is the time in the data. `sent` names the field that
    receives the time of sending. `row` is the number of the reading in its data set, starting with 1.
    """

    route: Route
    event: str
    key: str
    detail: Detail | bytes
    expected: Expectation = None
    encoding: str = ENVELOPE
    time: datetime | None = None
    sent: str | None = None
    row: int | None = None

    @property
    def unsendable(self) -> str | None:
        """Why Kinesis cannot accept the key as a partition key; None if it can."""
        if not self.key:
            return "the key is empty"
        if len(self.key) > PARTITION_KEY_LENGTH:
            return f"the key is longer than {PARTITION_KEY_LENGTH} characters"
        return None if self.key.isascii() or _is_unicode(self.key) else "the key is not valid Unicode"

    @property
    def name(self) -> str:
        """Event type, device and ID for messages; never the payload."""
        known = None if isinstance(self.detail, bytes) else self.detail.get("id")
        return f"{self.event} of {self.key}" + (f" ({known})" if known is not None else "")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def plain(event: str, detail: Detail) -> bytes:
    """Encode as JSON without an envelope; the field `event` names the event type."""
    return msgspec.json.encode({"event": event, **detail})


def gzipped(event: str, detail: Detail) -> bytes:
    """Encode as gzipped plain JSON. Deterministic."""
    return gzip.compress(plain(event, detail), mtime=0)


def avro(schema: Schema, renamed: Mapping[str, str]) -> Encode:
    """Return an encoder for the Avro single-object encoding: C3 01, CRC-64-AVRO fingerprint, binary body.

    `renamed` maps current field names to those in `schema`. Fields that are not in the schema are omitted. A detail
    that does not match the schema is encoded as plain JSON, so that the application receives and validates it.
    """
    parsed = fastavro.parse_schema(dict(schema))
    canonical = fastavro.schema.to_parsing_canonical_form(dict(schema))
    head = b"\xc3\x01" + bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))

    def encode(event: str, detail: Detail) -> bytes:
        values = {renamed.get(name, name): value for name, value in detail.items()}
        if not fastavro.validation.validate(values, parsed, raise_errors=False):
            return plain(event, detail)
        body = io.BytesIO(head)
        body.seek(len(head))
        fastavro.schemaless_writer(body, parsed, values)
        return body.getvalue()

    return encode


def encoders(schemas: Sequence[Schema] = ()) -> dict[str, Encode]:
    """Return the encoders for records on the stream, by name.

    `schemas` are the versions of an event's schema, the current one first. `avro` requires one; `avro-past`, which
    encodes with the oldest version, requires two.
    """
    found: dict[str, Encode] = {JSON: plain, GZIP: gzipped}
    if schemas:
        found[AVRO] = avro(schemas[0], {})
    if len(schemas) > 1:
        past = {field["name"] for field in schemas[-1]["fields"]}
        renamed = {
            field["name"]: alias
            for field in schemas[0]["fields"]
            for alias in field.get("aliases", ())
            if alias in past and field["name"] not in past
        }
        found[AVRO_PAST] = avro(schemas[-1], renamed)
    return found
