"""Types with which msgspec decodes and validates the JSON form of a field in one pass, if it can do so exactly."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Union
from uuid import UUID

import msgspec

from stream_app.pipeline.values.avro_types import AvroType
from stream_app.pipeline.values.scalars import LARGEST_SINGLE
from stream_app.pipeline.values.schema import (
    BOOLEAN,
    FLOAT,
    IDENTITY,
    OBJECT,
    SINGLE,
    TICKS_PER_SECOND,
    TIME_MS,
    TIME_US,
    Field,
)
from stream_app.pipeline.values.time_text import instant_text

MsgspecType = Any
"""A type expression such as `Annotated[int, Meta(…)] | None`: typing has no type for it."""

_INT = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
_LONG = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_SINGLE = Annotated[float, msgspec.Meta(ge=-LARGEST_SINGLE, le=LARGEST_SINGLE)]
# The years 1 to 9999. `columns` parses times given as text, because msgspec would round them to microseconds.
_MILLIS = Annotated[int, msgspec.Meta(ge=-62_135_596_800_000, le=253_402_300_799_999)]
_MICROS = Annotated[int, msgspec.Meta(ge=-62_135_596_800_000_000, le=253_402_300_799_999_999)]
_NOT_EMPTY = Annotated[str, msgspec.Meta(min_length=1)]
_TYPES: dict[str, MsgspecType] = {
    BOOLEAN: bool,
    FLOAT: float,
    SINGLE: _SINGLE,
    TIME_MS: Union[_MILLIS, str],  # noqa: UP007
    TIME_US: Union[_MICROS, str],  # noqa: UP007
    IDENTITY: UUID,
}


def fast_type(field: Field, *, required: bool, identity: bool) -> MsgspecType:
    """Return the type that decodes a field's JSON value, or None for a field that only `json_reader` can read.

    The type accepts only values that `json_reader` accepts, with the same result; it may reject some of them. A
    `required` field must not be null and, if it is the event's `identity`, not empty text.
    """
    if field.kind == OBJECT or field.name.startswith("__"):
        return None
    real = next(branch for branch in field.type.branches or (field.type,) if branch.type != "null")
    kind = _text_or_whole(real, not_empty=required and identity) or _TYPES[field.kind]
    return kind if required or not field.nullable else Union[kind, None]  # noqa: UP007


def fast_default(field: Field) -> object:
    """Return a field's default in JSON form. Times become text, which is exempt from the check for coarser units."""
    per_second = TICKS_PER_SECOND.get(field.kind)
    if per_second is None or not isinstance(field.default, int):
        return field.default
    return instant_text(field.default, per_second)


def _text_or_whole(avro: AvroType, *, not_empty: bool) -> MsgspecType:
    if avro.type == "enum":
        return Literal[tuple(avro.symbols)] if avro.symbols else None
    if avro.type == "string" and avro.logical is None:
        return _NOT_EMPTY if not_empty else str
    if avro.type == "int":
        return _INT
    return (
        _LONG
        if avro.type == "long" and (avro.logical is None or avro.logical.unit == 1_000_000_000)
        else None
    )
