"""Renders a failed record's bytes in readable form, and finds the schema that wrote them."""

from __future__ import annotations

import json
import zlib
from typing import Any, NamedTuple

from stream_app.errors import ConfigError
from stream_app.event_loading import schema_files
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.values.schema import compile_schema
from stream_app.recovery.bounded import decoded
from stream_app.recovery.bounded_avro import decoded_avro
from stream_app.recovery.stream.kpl import MAGIC

# A value of a decoded document, of any JSON type.
JsonValue = Any

_GZIP, _AVRO = b"\x1f\x8b", b"\xc3\x01"
_MAX_UNPACKED = 1_048_576  # protects against decompression bombs
_DUMP_WIDTH = 16


class Readable(NamedTuple):
    """A payload in readable form.

    `form` names its format: "json", "gzip, json", "avro", "text", "bytes", "gone" and so on. `value` is a JSON
    value, text, or the lines of a hex dump; `size` is the number of original bytes.
    """

    form: str
    value: JsonValue
    size: int


class SchemaVersion(NamedTuple):
    """The schema file with a fingerprint.

    `current` tells whether it is the event's newest version.
    """

    fingerprint: str
    event: str | None
    file: str | None
    current: bool


def readable_payload(data: bytes | None, registry: Registry) -> Readable:
    """Return a record's bytes in the most readable form. Never raises."""
    if data is None:
        return Readable("gone", None, 0)
    form, value = _read(data, registry)
    return Readable(form, value, len(data))


def _read(data: bytes, registry: Registry) -> tuple[str, JsonValue]:
    if data.startswith(_GZIP):
        inside = _gunzip(data)
        if inside is not None:
            form, value = _read_plain(inside, registry)
            return f"gzip, {form}", value
    return _read_plain(data, registry)


def _read_plain(data: bytes, registry: Registry) -> tuple[str, JsonValue]:
    if data.startswith(_AVRO):
        found = _avro(data, registry)
        if found is not None:
            return "avro", found
    try:
        return "json", decoded(data)
    except ValueError:
        pass
    try:
        text = data.decode()
    except UnicodeError:
        return "KPL aggregate" if data.startswith(MAGIC) else "bytes", hex_dump(data)
    return "text", printable_text(text)


def _gunzip(data: bytes) -> bytes | None:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        inside = unpacker.decompress(data, _MAX_UNPACKED)
    except zlib.error:
        return None
    return inside if unpacker.eof else None


def _avro(data: bytes, registry: Registry) -> JsonValue:
    known = registry.writers.get(data[2:10].hex())
    if known is None:
        return None
    try:
        return decoded_avro(data[10:], known[1].parsed)
    except ValueError:
        return None


def hex_dump(data: bytes, max_bytes: int = 1_024) -> list[str]:
    """Return offset, bytes and characters, sixteen bytes per line, of at most `max_bytes` bytes."""
    lines = []
    for at in range(0, min(len(data), max_bytes), _DUMP_WIDTH):
        part = data[at : at + _DUMP_WIDTH]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{at:08x}  {part.hex(' '):<{_DUMP_WIDTH * 3}} {text}")
    if len(data) > max_bytes:
        lines.append(f"… {len(data) - max_bytes:,} bytes more")
    return lines


def printable_text(text: str) -> str:
    """Escape control characters other than line breaks and tabs, which could affect a terminal."""
    return "".join(
        char
        if char.isprintable() or char in "\n\t"
        else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


def schema_version(fingerprint: str, registry: Registry) -> SchemaVersion:
    """Return the local schema file that has this fingerprint."""
    event = registry.writers.get(fingerprint, (None, None))[0]
    if event is None:
        return SchemaVersion(fingerprint, None, None, False)
    try:
        files = schema_files(event)
    except ConfigError:
        return SchemaVersion(fingerprint, event, None, False)
    for at, path in enumerate(files):
        try:
            compiled = compile_schema(json.loads(path.read_text(encoding="utf-8")), str(path))
        except (OSError, ValueError, ConfigError):
            continue
        if compiled.fingerprint == fingerprint:
            return SchemaVersion(fingerprint, event, path.name, at == 0)
    return SchemaVersion(fingerprint, event, None, False)
