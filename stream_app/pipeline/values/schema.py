"""Compiles Avro schemas: the kinds of the columns, the defaults and the fingerprint."""

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
from stream_app.pipeline.values.scalar import FieldValue
from stream_app.pipeline.values.violation import ViolationError

Json = dict[str, Any]
"""A JSON object. The members of a schema depend on its type: `compile_schema` validates them."""

# Kinds of columns. `readers.columns.build` makes an array of each.
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
    """One field of a record schema.

    `kind` and `nullable` decide the type of its column; `aliases` are former names. `default` is as the column holds
    it, such as ticks for a time.
    """

    name: str
    kind: str
    nullable: bool
    aliases: tuple[str, ...]
    default: FieldValue
    has_default: bool
    type: AvroType


@dataclass(frozen=True, slots=True)
class Schema:
    """One version of an event's schema.

    `fingerprint` is the CRC-64-AVRO fingerprint of the parsing canonical form as hexadecimal digits, in the byte
    order of Avro's single-object encoding.
    """

    name: str
    fields: tuple[Field, ...]
    parsed: Json
    fingerprint: str
    type: AvroType

    @property
    def columns(self) -> list[bool]:
        """For each field, whether its column has the kind of the field; other columns hold JSON as text."""
        return [field.kind != OBJECT for field in self.fields]


_SPECIFICATION = "https://avro.apache.org/docs/1.12.0/specification/"
_INVALID = (
    fastavro.schema.SchemaParseException,
    AttributeError,
    KeyError,
    ValueError,
    TypeError,
    RecursionError,
)


def compile_schema(raw: Json, source: str) -> Schema:
    """Compile an Avro record schema. Raises ConfigError naming `source` if it is invalid."""
    what = f"{source} is not a valid Avro schema"
    try:
        if not isinstance(raw, dict) or raw.get("type") != "record":
            raise ValueError("the top level is not a record")
        if errors := list(schema_errors(raw)):
            hint = f"correct the schema, see {_SPECIFICATION}"
            raise ConfigError([Problem(f"{what}: {error}", hint) for error in errors])
        return _compiled(raw)
    except ViolationError as error:
        hint = (
            "write defaults as the Avro specification requires: bytes as text, times as numbers, "
            "and for a union a value of its first branch"
        )
        raise ConfigError([Problem(f"{what}: default of {error}", hint)]) from error
    except _INVALID as error:
        hint = f"write an Avro schema of type record, see {_SPECIFICATION}"
        raise ConfigError([Problem(f"{what}: {error}", hint)]) from error


def _compiled(raw: Json) -> Schema:
    parsed = fastavro.parse_schema(raw)
    canonical = fastavro.schema.to_parsing_canonical_form(raw)
    # As hexadecimal digits in little-endian order, as in the single-object encoding.
    fingerprint = fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")
    top = resolve_types(parsed)
    fields = tuple(map(_field, top.fields))
    if len({field.name for field in fields}) < len(fields):
        raise ValueError("two fields have the same name")
    return Schema(raw["name"], fields, cast("Json", parsed), fingerprint, top)


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
