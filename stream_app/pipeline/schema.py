"""An Avro schema compiled: a typed JSON decoder, the kinds of its columns, its fingerprint."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, cast

import fastavro
import fastavro.schema
import msgspec

from stream_app.errors import ConfigError, Problem

Json = dict[str, Any]

# Kinds of columns; `columns.build` knows how to make an array of each.
FLOAT, INTEGER, BOOLEAN, TEXT, TIME_MS, TIME_US, OBJECT = (
    "float",
    "integer",
    "boolean",
    "text",
    "ms",
    "us",
    "object",
)

_INT = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
_LONG = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
# A date and time without a zone is refused: it would mean something else on each machine.
_INSTANT = Annotated[dt.datetime, msgspec.Meta(tz=True)]
_PRIMITIVES: dict[str, Any] = {
    "null": None,
    "boolean": bool,
    "int": _INT,
    "long": _LONG,
    "float": float,
    "double": float,
    "string": str,
    "bytes": bytes,
}
_LOGICAL: dict[str, Any] = {
    "timestamp-millis": Union[_LONG, _INSTANT],  # noqa: UP007 - Annotated has no | at run time
    "timestamp-micros": Union[_LONG, _INSTANT],  # noqa: UP007
    "date": dt.date,
    "uuid": str,
}
_KINDS = {
    "boolean": BOOLEAN,
    "int": INTEGER,
    "long": INTEGER,
    "float": FLOAT,
    "double": FLOAT,
    "string": TEXT,
    "enum": TEXT,
    "timestamp-millis": TIME_MS,
    "timestamp-micros": TIME_US,
    "uuid": TEXT,
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record schema; `kind` and `nullable` decide the column, `aliases` are older names."""

    name: str
    kind: str
    nullable: bool
    aliases: tuple[str, ...]
    default: Any
    has_default: bool


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
        parsed = fastavro.parse_schema(raw)
        canonical = fastavro.schema.to_parsing_canonical_form(raw)
        mark = fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")  # little-endian, as on the wire
        if raw.get("type") != "record":
            raise ValueError("the top level is not a record")
        fields = tuple(_field(item) for item in raw["fields"])
    except (fastavro.schema.SchemaParseException, KeyError, ValueError, TypeError) as error:
        hint = "write an Avro schema of type record"
        raise ConfigError([Problem(f"{source} is not an Avro schema: {error}", hint)]) from error
    return Schema(raw["name"], fields, cast(Json, parsed), mark)


def json_type(schema: Schema, raw: Json, required: Sequence[str]) -> type[msgspec.Struct]:
    """A Struct that decodes and checks the JSON form of a record.

    A `required` field may be absent or null here: `verify` reports it as FIELD_MISSING. Unknown fields are
    passed over, as Avro's resolution does. A field with aliases is UNSET when absent.
    """
    members: list[Any] = []
    for item, compiled in zip(raw["fields"], schema.fields, strict=True):
        kind = python_type(item["type"])
        if compiled.name in required:
            members.append((compiled.name, Union[kind, None], _absent(compiled, None)))  # noqa: UP007
        elif compiled.has_default or compiled.nullable:
            members.append((compiled.name, kind, _absent(compiled, compiled.default)))
        elif compiled.aliases:
            members.append((compiled.name, Union[kind, msgspec.UnsetType], msgspec.UNSET))  # noqa: UP007
        else:
            members.append((compiled.name, kind))
    return msgspec.defstruct(schema.name, members, kw_only=True, frozen=True, gc=False)


def _absent(field: Field, default: Any) -> Any:
    if field.aliases:
        return msgspec.UNSET
    return msgspec.field(default_factory=lambda: default) if isinstance(default, list | dict) else default


def python_type(avro: Any) -> Any:
    """The Python type that msgspec checks a JSON value of an Avro type against. Raises ValueError if unknown."""
    if isinstance(avro, list):
        return Union[tuple(python_type(branch) for branch in avro)]  # noqa: UP007
    if isinstance(avro, str):
        return _PRIMITIVES[avro]
    logical = avro.get("logicalType")
    if logical in _LOGICAL:
        return _LOGICAL[logical]
    return _complex_type(avro)


def _complex_type(avro: Json) -> Any:
    name = avro["type"]
    if isinstance(name, list | dict):
        return python_type(name)
    if name == "enum":
        return Literal[tuple(avro["symbols"])]
    if name == "array":
        return list[python_type(avro["items"])]  # type: ignore[misc]
    if name == "map":
        return dict[str, python_type(avro["values"])]  # type: ignore[misc]
    if name == "record":
        nested = [(f["name"], python_type(f["type"]), *_nested_default(f)) for f in avro["fields"]]
        return msgspec.defstruct(avro["name"], nested, kw_only=True)
    if name == "fixed":
        return bytes
    return _PRIMITIVES[name]


def _nested_default(field: Json) -> tuple[Any, ...]:
    return (field["default"],) if "default" in field and not isinstance(field["default"], list | dict) else ()


def _field(raw: Json) -> Field:
    branches = raw["type"] if isinstance(raw["type"], list) else [raw["type"]]
    real = [branch for branch in branches if branch != "null"]
    kind = _kind(real[0]) if len(real) == 1 else OBJECT
    python_type(raw["type"])  # an unknown type is found here, not at the first record
    return Field(
        name=raw["name"],
        kind=kind,
        nullable=len(real) < len(branches),
        aliases=tuple(raw.get("aliases", ())),
        default=raw.get("default"),
        has_default="default" in raw,
    )


def _kind(avro: Any) -> str:
    if isinstance(avro, str):
        return _KINDS.get(avro, OBJECT)
    inner = avro.get("logicalType") or avro["type"]
    return _KINDS.get(inner, OBJECT) if isinstance(inner, str) else OBJECT


def plain(value: Any) -> Any:
    """A nested value as built-in types, for columns of kind OBJECT."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return msgspec.to_builtins(value)


def renamed(document: Mapping[str, Any], fields: Sequence[Field]) -> Json:
    """A JSON object with older names of fields replaced by today's."""
    known = dict(document)
    for field in fields:
        for alias in field.aliases:
            if field.name not in known and alias in known:
                known[field.name] = known.pop(alias)
    return known
