"""An Avro schema compiled: the kinds of its columns, its defaults, its fingerprint."""

from __future__ import annotations

import base64
import copy
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import fastavro
import fastavro.schema
import msgspec

from stream_app.errors import ConfigError, Problem

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
# Logical types with the type that carries them. Any other pair is passed over, as Avro says.
_LOGICAL_KINDS = {
    ("timestamp-millis", "long"): TIME_MS,
    ("timestamp-micros", "long"): TIME_US,
    ("uuid", "string"): IDENTITY,
    ("local-timestamp-millis", "long"): OBJECT,
    ("local-timestamp-micros", "long"): OBJECT,
    ("time-millis", "int"): OBJECT,
    ("time-micros", "long"): OBJECT,
    ("date", "int"): OBJECT,
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record schema; `kind` and `nullable` decide the column, `aliases` are older names.

    `default` is a Python value such as Avro's reader would give; `avro` is the type, named types written out.
    """

    name: str
    kind: str
    nullable: bool
    aliases: tuple[str, ...]
    default: Any
    has_default: bool
    avro: Any


@dataclass(frozen=True, slots=True)
class Schema:
    """One version of an event's schema. `fingerprint` is CRC-64-AVRO of the canonical form, hex, as on the wire."""

    name: str
    fields: tuple[Field, ...]
    parsed: Json
    fingerprint: str


def compile_schema(raw: Json, source: str) -> Schema:
    """Parse one Avro record schema. Raises ConfigError naming `source` when it is not one."""
    try:
        if not isinstance(raw, dict) or raw.get("type") != "record":
            raise ValueError("the top level is not a record")
        parsed = fastavro.parse_schema(raw)
        canonical = fastavro.schema.to_parsing_canonical_form(raw)
        mark = fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")  # little-endian, as on the wire
        written_out = cast(Json, fastavro.schema.expand_schema(raw))
        fields = tuple(_field(item) for item in written_out["fields"])
        if len({field.name for field in fields}) < len(fields):
            raise ValueError("a field is named twice")
    except (fastavro.schema.SchemaParseException, KeyError, ValueError, TypeError) as error:
        hint = "write an Avro schema of type record"
        raise ConfigError([Problem(f"{source} is not an Avro schema: {error}", hint)]) from error
    return Schema(raw["name"], fields, cast(Json, parsed), mark)


def reader_of(schema: Schema, required: Sequence[str]) -> Json:
    """The schema as older and newer writers' records are read by it.

    A `required` field that the writer lacks becomes null, so that it is known to be missing.
    """
    reader = copy.deepcopy(schema.parsed)
    for item, field in zip(reader["fields"], schema.fields, strict=True):
        if field.name in required:
            item["default"] = None
        elif field.has_default:
            item["default"] = field.default
    return reader


def nested_of(schema: Schema) -> Json | None:
    """The fields that are columns of objects, as a record of their own and each nullable; None if none are."""
    nested = {field.name for field in schema.fields if field.kind == OBJECT}
    fields = [
        {"name": item["name"], "type": _nullable(item["type"])}
        for item in schema.parsed["fields"]
        if item["name"] in nested
    ]
    return {**schema.parsed, "fields": fields} if fields else None


def _nullable(avro: Any) -> list[Any]:
    branches = avro if isinstance(avro, list) else [avro]
    return branches if "null" in branches else ["null", *branches]


def _field(raw: Json) -> Field:
    branches = raw["type"] if isinstance(raw["type"], list) else [raw["type"]]
    real = [branch for branch in branches if branch != "null"]
    return Field(
        name=raw["name"],
        kind=_kind(real[0]) if len(real) == 1 else OBJECT,
        nullable=len(real) < len(branches),
        aliases=tuple(raw.get("aliases", ())),
        default=default_of(raw),
        has_default="default" in raw,
        avro=raw["type"],
    )


def _kind(avro: Any) -> str:
    if not isinstance(avro, dict):
        return _KINDS.get(avro, OBJECT)
    logical = _LOGICAL_KINDS.get((avro.get("logicalType"), avro["type"]))  # type: ignore[arg-type]
    return logical or _KINDS.get(avro["type"], OBJECT)


def default_of(raw: Json) -> Any:
    """A field's default as Avro's reader would give it, None where there is none. Raises ValueError if wrong."""
    default = raw.get("default")
    if default is None:
        return None
    # In a schema, bytes are written as text, a character a byte.
    carried = default.encode("latin-1") if isinstance(default, str) and _is_bytes(raw["type"]) else default
    schema = {"type": "record", "name": "default", "fields": [{"name": "value", "type": raw["type"]}]}
    try:
        return through_avro({"value": carried}, cast(Json, fastavro.parse_schema(schema)))["value"]
    except fastavro.schema.SchemaParseException:  # a named type that is written out twice
        return carried
    except NotAvroError as error:
        raise ValueError(f"the default of {raw['name']!r} is not of its type") from error


def _is_bytes(avro: Any) -> bool:
    if isinstance(avro, list):
        return any(_is_bytes(branch) for branch in avro) and "string" not in avro
    return avro in ("bytes", "fixed") if isinstance(avro, str) else _is_bytes(avro["type"])


class NotAvroError(Exception):
    """A value or a body is not what its schema says."""


def through_avro(record: Json, parsed: Json) -> Json:
    """A record as Avro holds it: what a reader gets of what a writer wrote. Raises NotAvroError."""
    stream = io.BytesIO()
    try:
        fastavro.schemaless_writer(stream, parsed, record)
        stream.seek(0)
        return cast(Json, fastavro.schemaless_reader(stream, parsed, None))
    except Exception as error:  # fastavro raises many kinds (ValueError, OverflowError, struct.error …)
        raise NotAvroError(f"not of the schema: {type(error).__name__}") from error


def plain(value: Any) -> Any:
    """A value as built-in types, for columns that hold objects: bytes as base64, times as ISO-8601."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return msgspec.to_builtins(value)
