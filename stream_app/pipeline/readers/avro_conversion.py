"""Single values of a writer's Avro type as values of the reader's: promotions, and logical types that differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stream_app.pipeline.readers.avro_bytes import Cursor
from stream_app.pipeline.values.avro_types import DECIMAL, UUID, AvroType
from stream_app.pipeline.values.scalar import Scalar
from stream_app.pipeline.values.scalar_decimal import Decimal
from stream_app.pipeline.values.scalars import scalar_for
from stream_app.pipeline.values.violation import ViolationError

Read = Callable[[Cursor], Any]
_PROMOTIONS = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}


_PRIMITIVE: Mapping[str, Read] = {
    "null": Cursor.null,
    "boolean": Cursor.boolean,
    "float": Cursor.single,
    "double": Cursor.double,
    "bytes": Cursor.sized,
    "string": Cursor.string,
}


class ConflictError(Exception):
    """A writer's and a reader's logical type between which no value means the same. Its text says where and why."""


class UnresolvableError(Exception):
    """A writer's type that Avro does not read as the reader's."""


def scalar_reader(writer: AvroType, reader: AvroType, *, column: bool, nullable: bool) -> Read:
    """How a single value that `writer` wrote is read as `reader`.

    Between two logical types of one family the value is converted by the reader's; between a logical type and the
    plain type that carries it, it is what is carried. Raises UnresolvableError and ConflictError.
    """
    scalar = scalar_for(reader, column=column, nullable=nullable)
    if scalar is None:
        raise UnresolvableError
    if writer.type == "enum" and reader.type == "enum":
        return _enum(writer, reader, scalar)
    raw, carried = primitive_reader(writer), scalar.carried
    ours, theirs = reader.logical, writer.logical
    if ours is not None and theirs is not None:
        if ours.family != theirs.family:
            _check(writer, reader)
            raise ConflictError(f"{writer.logical_name} cannot be read as {reader.logical_name}")
        if isinstance(scalar, Decimal):
            return _decimal(raw, scalar, theirs.unit)
        if ours.unit != theirs.unit:
            return _ticks(raw, carried, ours.unit, theirs.unit)
        if ours.family == UUID:
            return lambda cursor: carried(raw(cursor), cursor.arrived)
    _check(writer, reader)
    if writer.type != reader.type and DECIMAL in (writer.logical_name, reader.logical_name):
        raise ConflictError(f"{writer.logical_name} cannot be read as {reader.logical_name}")
    return lambda cursor: carried(raw(cursor), cursor.arrived)


def _check(writer: AvroType, reader: AvroType) -> None:
    same = writer.type == reader.type and writer.size == reader.size
    if not same and reader.type not in _PROMOTIONS.get(writer.type, ()):
        raise UnresolvableError


def primitive_reader(avro: AvroType) -> Read:
    """How the value that carries a single value is read off the bytes."""
    match avro.type:
        case "int" | "long":
            return Cursor.long
        case "fixed":
            size = avro.size
            return lambda cursor: cursor.fixed(size)
        case "enum":
            symbols, said = avro.symbols, f"a symbol of {avro}"
            return lambda cursor: symbols[cursor.index(len(symbols), said)]
        case kind:
            return _PRIMITIVE[kind]


def _enum(writer: AvroType, reader: AvroType, scalar: Scalar) -> Read:
    """A symbol that the reader does not know is the reader's default, as Avro says, where it has one."""
    raw, symbols, default = primitive_reader(writer), frozenset(reader.symbols), reader.symbol_default

    def read(cursor: Cursor) -> Any:
        symbol = raw(cursor)
        if symbol not in symbols and default is not None:
            return default
        return scalar.carried(symbol, cursor.arrived)

    return read


def _decimal(raw: Read, scalar: Decimal, scale: int) -> Read:
    def read(cursor: Cursor) -> Any:
        data = raw(cursor)
        if not data:
            raise scalar.wrong("no bytes")
        return scalar.unscaled(int.from_bytes(data, "big", signed=True), scale)

    return read


def _ticks(raw: Read, carried: Callable[[Any, int | None], Any], ours: int, theirs: int) -> Read:
    """A time in the reader's unit, cut down towards the past."""
    return lambda cursor: carried(raw(cursor) * ours // theirs, cursor.arrived)


def same_logical_type(writer: AvroType, reader: AvroType) -> bool:
    """Whether bytes of either type mean the same value, where both have the same canonical form."""
    ours, theirs = reader.logical, writer.logical
    return ours is None or theirs is None or ours == theirs


def unresolvable_reader(writer: AvroType, reader: AvroType) -> Read:
    """Refuses each value: only a record that has one is parked."""

    def read(cursor: Cursor) -> Any:
        raise ViolationError(str(reader), f"{writer} in the writer's schema")

    return read
