"""Decodes Avro bodies of a known schema, with a limit on the number and depth of values."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

import fastavro
import msgspec

from stream_app.recovery.bounded import MAX_DEPTH

MAX_VALUES = 100_000  # an array of a billion nulls takes a few bytes
# A schema parsed by fastavro: nested names, lists and dictionaries.
AvroSchema = Any
# A decoded record in built-in types.
AvroValue = Any
_FIXED: Mapping[str, int] = {"null": 0, "boolean": 1, "float": 4, "double": 8}


def decoded_avro(body: bytes, writer: AvroSchema, reader: AvroSchema = None) -> AvroValue:
    """Return the record in an Avro body as built-in types, resolved to `reader` if given.

    Both are parsed schemas. Raises ValueError for any error.
    """
    try:
        _Walk(body, _named(writer)).value(writer, 0)
        return msgspec.to_builtins(
            fastavro.schemaless_reader(io.BytesIO(body), writer, reader), str_keys=True
        )
    except Exception as error:  # fastavro raises many types for invalid bytes
        raise ValueError(f"cannot read the Avro body: {type(error).__name__}") from error


class _Walk:
    """Traverses a body without creating its values, and counts them."""

    def __init__(self, body: bytes, named: Mapping[str, AvroSchema]) -> None:
        self._body, self._named, self._at, self._left = body, named, 0, MAX_VALUES

    def value(self, schema: AvroSchema, depth: int) -> None:
        """Skip one value.

        Raises ValueError above the limits, KeyError or IndexError for invalid bytes.
        """
        self._left -= 1
        if self._left < 0 or depth > MAX_DEPTH:
            raise ValueError("it exceeds the number or the depth of values in a record")
        if isinstance(schema, list):
            return self.value(schema[self._index(len(schema))], depth + 1)
        kind = schema if isinstance(schema, str) else schema["type"]
        if isinstance(kind, dict | list):
            return self.value(kind, depth + 1)
        if kind in ("record", "error"):
            for field in schema["fields"]:
                self.value(field["type"], depth + 1)
        elif kind in ("array", "map"):
            self._blocks(schema, kind, depth)
        elif kind in ("bytes", "string"):
            self._skip(self._long())
        elif kind in ("int", "long", "enum"):
            self._long()
        elif kind == "fixed":
            self._skip(schema["size"])
        elif kind in _FIXED:
            self._skip(_FIXED[kind])
        else:
            self.value(self._named[kind], depth + 1)
        return None

    def _blocks(self, schema: Mapping[str, AvroSchema], kind: str, depth: int) -> None:
        while count := self._long():
            if count < 0:
                self._long()  # the size of the block in bytes
            for _ in range(abs(count)):
                if kind == "map":
                    self._skip(self._long())
                self.value(schema["items" if kind == "array" else "values"], depth + 1)

    def _index(self, most: int) -> int:
        index = self._long()
        if not 0 <= index < most:
            raise IndexError(index)
        return index

    def _long(self) -> int:
        value = shift = 0
        while True:
            byte = self._body[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)
            shift += 7
            if shift > 63:
                raise ValueError("a variable-length integer exceeds 64 bits")

    def _skip(self, size: int) -> None:
        self._at += size
        if size < 0 or self._at > len(self._body):
            raise ValueError("a length exceeds the body")


def _named(schema: AvroSchema) -> dict[str, AvroSchema]:
    return {found["name"]: found for found in _schemas(schema) if "name" in found}


def _schemas(schema: AvroSchema) -> Iterator[dict[str, AvroSchema]]:
    if isinstance(schema, list):
        for one in schema:
            yield from _schemas(one)
    elif isinstance(schema, dict):
        if schema.get("type") in ("record", "error", "enum", "fixed"):
            yield schema
        for name in ("type", "items", "values"):
            yield from _schemas(schema.get(name))
        for field in schema.get("fields", ()):
            yield from _schemas(field["type"])
