"""The JSON form of an Avro record, as types that msgspec checks while it decodes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, Union
from uuid import UUID

import msgspec

from stream_app.pipeline.schema import Field, Json, Schema, default_of

_INT = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
_LONG = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_LARGEST_SINGLE = 2.0**128 - 2.0**104
_SINGLE = Annotated[float, msgspec.Meta(ge=-_LARGEST_SINGLE, le=_LARGEST_SINGLE)]
# The years 1 to 9999, which is what ISO-8601 and Avro's readers can say.
_MILLIS = Annotated[int, msgspec.Meta(ge=-62_135_596_800_000, le=253_402_300_799_999)]
_MICROS = Annotated[int, msgspec.Meta(ge=-62_135_596_800_000_000, le=253_402_300_799_999_999)]
_DAY_MILLIS = Annotated[int, msgspec.Meta(ge=0, le=86_399_999)]
_DAY_MICROS = Annotated[int, msgspec.Meta(ge=0, le=86_399_999_999)]
# A date and time without a zone is refused: it would mean something else on each machine.
_INSTANT = Annotated[dt.datetime, msgspec.Meta(tz=True)]
_LOCAL = Annotated[dt.datetime, msgspec.Meta(tz=False)]

_PRIMITIVES: dict[str, Any] = {
    "null": None,
    "boolean": bool,
    "int": _INT,
    "long": _LONG,
    "float": _SINGLE,
    "double": float,
    "string": str,
    "bytes": bytes,
}
# Beside its text, a date or time may be the number that Avro carries.
_LOGICAL: dict[tuple[Any, Any], Any] = {
    ("timestamp-millis", "long"): _MILLIS | _INSTANT,
    ("timestamp-micros", "long"): _MICROS | _INSTANT,
    ("local-timestamp-millis", "long"): _MILLIS | _LOCAL,
    ("local-timestamp-micros", "long"): _MICROS | _LOCAL,
    ("time-millis", "int"): _DAY_MILLIS | dt.time,
    ("time-micros", "long"): _DAY_MICROS | dt.time,
    ("date", "int"): _INT | dt.date,
    ("decimal", "bytes"): Decimal,
    ("decimal", "fixed"): Decimal,
    ("uuid", "string"): UUID,
}


def json_type(schema: Schema, required: Sequence[str]) -> type[msgspec.Struct]:
    """A Struct that decodes and checks the JSON form of a record.

    A `required` field may be absent or null here: `verify` reports it as FIELD_MISSING. Unknown fields are
    passed over, as Avro's resolution does. A field with aliases is UNSET when absent. Raises ValueError or
    TypeError on a type that has no JSON form.
    """
    members: list[Any] = []
    for field in schema.fields:
        kind = python_type(field.avro)
        if field.name in required:
            members.append((field.name, Union[kind, None], _absent(field, None)))  # noqa: UP007
        elif field.has_default or field.nullable:
            members.append((field.name, kind, _absent(field, field.default)))
        elif field.aliases:
            members.append((field.name, Union[kind, msgspec.UnsetType], msgspec.UNSET))  # noqa: UP007
        else:
            members.append((field.name, kind))
    return msgspec.defstruct(schema.name, members, kw_only=True, frozen=True, gc=False)


def _absent(field: Field, default: Any) -> Any:
    return msgspec.UNSET if field.aliases else absent_value(default)


def absent_value(value: Any) -> Any:
    """A default as a Struct takes it: of a list or a map each record has its own."""
    return msgspec.field(default_factory=lambda: value) if isinstance(value, list | dict) else value


def python_type(avro: Any) -> Any:
    """The Python type that msgspec checks a JSON value of an Avro type against. Raises ValueError if unknown."""
    if isinstance(avro, list):
        return Union[tuple(python_type(branch) for branch in avro)]  # noqa: UP007
    if isinstance(avro, str):
        if avro not in _PRIMITIVES:
            raise ValueError(f"type {avro!r} has no JSON form")
        return _PRIMITIVES[avro]
    logical = _LOGICAL.get((avro.get("logicalType"), avro["type"]))
    return _complex_type(avro) if logical is None else logical


def _complex_type(avro: Json) -> Any:
    match avro["type"]:
        case "enum":
            return Literal[tuple(avro["symbols"])]
        case "array":
            return list[python_type(avro["items"])]  # type: ignore[misc]
        case "map":
            return dict[str, python_type(avro["values"])]  # type: ignore[misc]
        case "record":
            members = [_member(item) for item in avro["fields"]]
            return msgspec.defstruct(avro["name"].split(".")[-1], members, kw_only=True)
        case "fixed":
            return Annotated[bytes, msgspec.Meta(min_length=avro["size"], max_length=avro["size"])]
        case primitive:
            return python_type(primitive)


def _member(item: Json) -> tuple[Any, ...]:
    """A nested record's field. As at the top, one that may be null may be absent."""
    nullable = item["type"] == "null" or (isinstance(item["type"], list) and "null" in item["type"])
    absent = (absent_value(default_of(item)),) if "default" in item or nullable else ()
    return (item["name"], python_type(item["type"]), *absent)


def renamed(document: Mapping[str, Any], fields: Sequence[Field]) -> Json:
    """A JSON object with older names of fields replaced by today's."""
    known = dict(document)
    for field in fields:
        for alias in field.aliases:
            if field.name not in known and alias in known:
                known[field.name] = known.pop(alias)
    return known
