"""A failed record's bytes in a form that people can read, and the schema that it was read by."""

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

_GZIP, _AVRO = b"\x1f\x8b", b"\xc3\x01"
_MOST = 1_048_576  # a small gzip must not fill the memory
_LINE = 16


class Readable(NamedTuple):
    """A payload: `form` says what the bytes are ("json", "gzip, json", "avro", "text", "bytes", "gone", …).

    `value` is a JSON value, text, or the lines of a hex dump; `size` counts the bytes as they came.
    """

    form: str
    value: Any
    size: int


class SchemaVersion(NamedTuple):
    """Which file a fingerprint belongs to; `current` tells whether records are written by it now."""

    fingerprint: str
    event: str | None
    file: str | None
    current: bool


def readable_payload(data: bytes | None, registry: Registry) -> Readable:
    """What a record's bytes say, as far as they can be read. Never raises."""
    if data is None:
        return Readable("gone", None, 0)
    form, value = _read(data, registry)
    return Readable(form, value, len(data))


def _read(data: bytes, registry: Registry) -> tuple[str, Any]:
    if data.startswith(_GZIP):
        inside = _gunzip(data)
        if inside is not None:
            form, value = _read_plain(inside, registry)
            return f"gzip, {form}", value
    return _read_plain(data, registry)


def _read_plain(data: bytes, registry: Registry) -> tuple[str, Any]:
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
        inside = unpacker.decompress(data, _MOST)
    except zlib.error:
        return None
    return inside if unpacker.eof else None


def _avro(data: bytes, registry: Registry) -> Any:
    known = registry.writers.get(data[2:10].hex())
    if known is None:
        return None
    try:
        return decoded_avro(data[10:], known[1].parsed)
    except ValueError:
        return None


def hex_dump(data: bytes, most: int = 1_024) -> list[str]:
    """Offset, bytes and characters, sixteen a line, of at most so many bytes."""
    lines = []
    for at in range(0, min(len(data), most), _LINE):
        part = data[at : at + _LINE]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{at:08x}  {part.hex(' '):<{_LINE * 3}} {text}")
    if len(data) > most:
        lines.append(f"… {len(data) - most:,} bytes more")
    return lines


def printable_text(text: str) -> str:
    """A sender's text without what could steer a terminal: such characters as escapes, lines kept."""
    return "".join(
        char
        if char.isprintable() or char in "\n\t"
        else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


def schema_version(fingerprint: str, registry: Registry) -> SchemaVersion:
    """The schema file that has this fingerprint, among those that are here."""
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
