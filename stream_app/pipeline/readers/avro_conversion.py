"""Schema resolution of single values: type promotions, and conversions between logical types."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stream_app.pipeline.readers.avro_bytes import Cursor
from stream_app.pipeline.values.avro_types import DECIMAL, UUID, AvroType
from stream_app.pipeline.values.scalar import AvroPrimitive, Scalar
from stream_app.pipeline.values.scalar_decimal import Decimal
from stream_app.pipeline.values.scalars import scalar_for
from stream_app.pipeline.values.violation import ViolationError

Read = Callable[[Cursor], object]
"""Reads a value at the cursor as the reader's type."""
ReadPrimitive = Callable[[Cursor], AvroPrimitive]
_PROMOTIONS = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}


_PRIMITIVE: Mapping[str, ReadPrimitive] = {
    "null": Cursor.null,
    "boolean": Cursor.boolean,
    "float": Cursor.single,
    "double": Cursor.double,
    "bytes": Cursor.sized,
    "string": Cursor.string,
}


class ConflictError(Exception):
    """The writer's and the reader's logical types have no common meaning. The message names the field and types."""


class UnresolvableError(Exception):
    """Avro's schema resolution cannot read the writer's type as the reader's."""


def scalar_reader(writer: AvroType, reader: AvroType, *, column: bool, nullable: bool) -> Read:
    """Return the function that reads a single value of type `writer` as type `reader`.

    Values of two logical types of one family are converted; between a logical type and its underlying plain type the
    underlying value is kept. `column` and `nullable` are as in `scalar_for`. Raises UnresolvableError and
    ConflictError.
    """
    scalar = scalar_for(reader, column=column, nullable=nullable)
    if scalar is None:
        raise UnresolvableError
    if writer.type == "enum" and reader.type == "enum":
        return _enum(writer, reader, scalar)
    raw, convert = primitive_reader(writer), scalar.from_avro
    ours, theirs = reader.logical, writer.logical
    if ours is not None and theirs is not None:
        if ours.family != theirs.family:
            _require_resolvable(writer, reader)
            raise ConflictError(f"{writer.logical_name} cannot be read as {reader.logical_name}")
        if isinstance(scalar, Decimal):
            return _decimal(raw, scalar, theirs.unit)
        if ours.unit != theirs.unit:
            return _ticks(raw, convert, ours.unit, theirs.unit)
        if ours.family == UUID:
            return lambda cursor: convert(raw(cursor), cursor.arrived)
    _require_resolvable(writer, reader)
    if writer.type != reader.type and DECIMAL in (writer.logical_name, reader.logical_name):
        raise ConflictError(f"{writer.logical_name} cannot be read as {reader.logical_name}")
    return lambda cursor: convert(raw(cursor), cursor.arrived)


def _require_resolvable(writer: AvroType, reader: AvroType) -> None:
    same = writer.type == reader.type and writer.size == reader.size
    if not same and reader.type not in _PROMOTIONS.get(writer.type, ()):
        raise UnresolvableError


def primitive_reader(avro: AvroType) -> ReadPrimitive:
    """Return the function that reads the underlying primitive value of a type."""
    match avro.type:
        case "int" | "long":
            return Cursor.long
        case "fixed":
            size = avro.size
            return lambda cursor: cursor.fixed(size)
        case "enum":
            symbols, expected = avro.symbols, f"a symbol of {avro}"
            return lambda cursor: symbols[cursor.index(len(symbols), expected)]
        case kind:
            return _PRIMITIVE[kind]


def _enum(writer: AvroType, reader: AvroType, scalar: Scalar) -> Read:
    """Read a symbol; an unknown one becomes the reader's default symbol, if there is one."""
    raw, symbols, default = primitive_reader(writer), frozenset(reader.symbols), reader.symbol_default

    def read(cursor: Cursor) -> object:
        symbol = raw(cursor)
        if symbol not in symbols and default is not None:
            return default
        return scalar.from_avro(symbol, cursor.arrived)

    return read


def _decimal(raw: ReadPrimitive, scalar: Decimal, scale: int) -> Read:
    def read(cursor: Cursor) -> object:
        data = raw(cursor)
        if not data:
            raise scalar.violation("no bytes")
        return scalar.from_unscaled(int.from_bytes(data, "big", signed=True), scale)

    return read


def _ticks(
    raw: ReadPrimitive, convert: Callable[[AvroPrimitive, int | None], object], ours: int, theirs: int
) -> Read:
    """Convert ticks to the reader's unit, rounding towards the past."""
    return lambda cursor: convert(raw(cursor) * ours // theirs, cursor.arrived)


def same_logical_type(writer: AvroType, reader: AvroType) -> bool:
    """Whether the same bytes mean the same value in both types, given that their canonical forms are the same."""
    ours, theirs = reader.logical, writer.logical
    return ours is None or theirs is None or ours == theirs


def unresolvable_reader(writer: AvroType, reader: AvroType) -> Read:
    """Return a function that rejects every value, so that only records that contain one are parked."""

    def read(cursor: Cursor) -> object:
        raise ViolationError(str(reader), f"{writer} in the writer's schema")

    return read
