"""What a device sends, and its forms: those of `sinks.entries`, plain JSON, gzip, Avro single-object."""

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
Detail = Mapping[str, Any]
# A record's bytes, out of the event's name and its detail.
Encode = Callable[[str, Detail], bytes]

PARTITION_KEY_LENGTH: Final = 256  # as Kinesis limits it
ENVELOPE, JSON, GZIP, AVRO, AVRO_PAST = "envelope", "json", "gzip", "avro", "avro-past"


class Sending(NamedTuple):
    """One thing that a device sends.

    `detail` is an event's fields, or bytes that go onto the stream as they are. `form` says how a detail on the
    stream is written; on the bus it is always the envelope. `expected` is what the application should make of
    it: a failure's code, "repeated", or None where it is good. `time` is the data's own. `sent` names the field
    in which the device writes when it sends. `row` is the number of the reading in its data set, from 1.
    """

    route: Route
    event: str
    key: str
    detail: Detail | bytes
    expected: Expectation = None
    form: str = ENVELOPE
    time: datetime | None = None
    sent: str | None = None
    row: int | None = None

    @property
    def unsendable(self) -> str | None:
        """Why Kinesis cannot take it, because its key is the record's partition key; None where it can."""
        if not self.key:
            return "the key is empty"
        if len(self.key) > PARTITION_KEY_LENGTH:
            return f"the key is longer than {PARTITION_KEY_LENGTH} characters"
        return None if self.key.isascii() or _is_unicode(self.key) else "the key is not valid Unicode"

    @property
    def name(self) -> str:
        """For messages: event, device and id, never the payload."""
        known = None if isinstance(self.detail, bytes) else self.detail.get("id")
        return f"{self.event} of {self.key}" + (f" ({known})" if known is not None else "")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def plain(event: str, detail: Detail) -> bytes:
    """JSON without an envelope: `event` names the type."""
    return msgspec.json.encode({"event": event, **detail})


def gzipped(event: str, detail: Detail) -> bytes:
    """Plain JSON, compressed; the same detail gives the same bytes."""
    return gzip.compress(plain(event, detail), mtime=0)


def avro(schema: Mapping[str, Any], renamed: Mapping[str, str]) -> Encode:
    """Avro single-object encoding with `schema`: C3 01, CRC-64-AVRO fingerprint, binary body.

    `renamed` gives a field's name in this schema by its name today. Fields that the schema does not have are left
    out. A detail that does not fit goes as plain JSON: a device can only send what it has, and judging it is the
    application's part.
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


def forms(schemas: Sequence[Mapping[str, Any]] = ()) -> dict[str, Encode]:
    """How a detail can be written onto the stream, by name. `schemas` are an event's, the current first; Avro
    needs one, and `avro-past`, which writes as the oldest version kept, two.
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
