"""An Avro schema compiled: the kinds of its columns, its defaults, its fingerprint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import fastavro
import fastavro.schema

from stream_app.errors import ConfigError, Problem
from stream_app.pipeline.values.avro_types import (
    INSTANT,
    UUID,
    AvroField,
    AvroType,
    resolve_types,
    schema_errors,
)
from stream_app.pipeline.values.defaults import default_value
from stream_app.pipeline.values.violation import ViolationError

Json = dict[str, Any]

# Kinds of columns; `columns.build` knows how to make an array of each.
FLOAT, SINGLE, INTEGER, BOOLEAN, TEXT, IDENTITY, TIME_MS, TIME_US, OBJECT = (
    "float",
    "single",
    "integer",
    "boolean",
    "text",
    "uuid",
    "ms",
    "us",
    "object",
)
_KINDS = {
    "boolean": BOOLEAN,
    "int": INTEGER,
    "long": INTEGER,
    "float": SINGLE,
    "double": FLOAT,
    "string": TEXT,
    "enum": TEXT,
}
_TIMES = {1_000: TIME_MS, 1_000_000: TIME_US, 1_000_000_000: INTEGER}
TICKS_PER_SECOND = {TIME_MS: 1_000, TIME_US: 1_000_000}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record schema; `kind` and `nullable` decide the column, `aliases` are older names.

    `default` is as the column holds it: times as ticks, and so on.
    """

    name: str
    kind: str
    nullable: bool
    aliases: tuple[str, ...]
    default: Any
    has_default: bool
    type: AvroType


@dataclass(frozen=True, slots=True)
class Schema:
    """One version of an event's schema. `fingerprint` is CRC-64-AVRO of the canonical form, hex, as on the wire."""

    name: str
    fields: tuple[Field, ...]
    parsed: Json
    fingerprint: str
    type: AvroType

    @property
    def columns(self) -> list[bool]:
        """Which fields have a column of their own kind; those of the others hold text and JSON."""
        return [field.kind != OBJECT for field in self.fields]


def compile_schema(raw: Json, source: str) -> Schema:
    """Parse one Avro record schema. Raises ConfigError naming `source` when it is not one."""
    try:
        if not isinstance(raw, dict) or raw.get("type") != "record":
            raise ValueError("the top level is not a record")
        if found := list(schema_errors(raw)):
            hint = "correct the schema, see https://avro.apache.org/docs/1.12.0/specification/"
            raise ConfigError([Problem(f"{source} is not an Avro schema: {wrong}", hint) for wrong in found])
        parsed = fastavro.parse_schema(raw)
        canonical = fastavro.schema.to_parsing_canonical_form(raw)
        mark = fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")  # little-endian, as on the wire
        top = resolve_types(parsed)
        fields = tuple(map(_field, top.fields))
        if len({field.name for field in fields}) < len(fields):
            raise ValueError("a field is named twice")
    except ViolationError as error:
        hint = "write the default as Avro does: bytes as text, times as numbers, of a union its first type"
        raise ConfigError([Problem(f"{source} is not an Avro schema: default of {error}", hint)]) from error
    except (
        fastavro.schema.SchemaParseException,
        AttributeError,
        KeyError,
        ValueError,
        TypeError,
        RecursionError,
    ) as error:
        hint = "write an Avro schema of type record"
        raise ConfigError([Problem(f"{source} is not an Avro schema: {error}", hint)]) from error
    return Schema(raw["name"], fields, cast("Json", parsed), mark, top)


def _field(field: AvroField) -> Field:
    avro = field.type
    real = [branch for branch in avro.branches or (avro,) if branch.type != "null"]
    kind = _kind(real[0]) if len(real) == 1 else OBJECT
    default = default_value(field, column=kind != OBJECT) if field.has_default else None
    return Field(field.name, kind, avro.nullable, field.aliases, default, field.has_default, avro)


def _kind(avro: AvroType) -> str:
    if avro.logical is None:
        return _KINDS.get(avro.type, OBJECT)
    if avro.logical.family == INSTANT:
        return _TIMES[avro.logical.unit]
    if avro.logical.family == UUID:
        return IDENTITY
    return OBJECT if avro.type != "long" or avro.logical.unit != 1_000_000_000 else INTEGER
