"""Converts the defaults of a schema to the values that columns hold."""

from __future__ import annotations

from stream_app.pipeline.values.avro_types import AvroField, AvroType
from stream_app.pipeline.values.scalars import scalar_for
from stream_app.pipeline.values.violation import ViolationError

NO_VALUE = object()
"""The absent value of a field that must be present."""


def absent_value(field: AvroField, *, column: bool) -> object:
    """Return the value of a field that a record lacks: its default, else None if it is nullable, else NO_VALUE."""
    if field.has_default:
        return default_value(field, column=column)
    return None if field.type.nullable else NO_VALUE


def default_value(field: AvroField, *, column: bool) -> object:
    """Return the default of a field that has one. Raises ViolationError if the default is not of the field's type."""
    try:
        return _value(field.type, field.default, column, False)
    except ViolationError as error:
        raise error.within(f".{field.name}") from None


def _value(avro: AvroType, default: object, column: bool, nullable: bool) -> object:
    if avro.type == "union":
        return _union_value(avro, default, column)
    scalar = scalar_for(avro, column=column, nullable=nullable)
    if scalar is not None:
        return scalar.from_default(default)
    if avro.items is not None:
        return _collection_value(avro, avro.items, default)
    return _record_value(avro, default)


def _record_value(avro: AvroType, default: object) -> dict[str, object]:
    if not isinstance(default, dict):
        raise ViolationError("an object", type(default).__name__)
    values: dict[str, object] = {}
    for field in avro.fields:
        if field.name in default:
            try:
                values[field.name] = _value(field.type, default[field.name], False, False)
            except ViolationError as error:
                raise error.within(f".{field.name}") from None
        else:
            values[field.name] = absent_value(field, column=False)
            if values[field.name] is NO_VALUE:
                raise ViolationError(f"a field {field.name}", "none")
    return values


def _union_value(avro: AvroType, default: object, column: bool) -> object:
    """Convert a default of the first branch that it fits."""
    column = column and sum(branch.type != "null" for branch in avro.branches) == 1
    errors = []
    for branch in avro.branches:
        try:
            return _value(branch, default, column, avro.nullable)
        except ViolationError as error:
            errors.append(error)
    raise errors[0] if errors else ViolationError("a value", "an empty union")


def _collection_value(avro: AvroType, items: AvroType, default: object) -> object:
    if avro.type == "array":
        if not isinstance(default, list):
            raise ViolationError("an array", type(default).__name__)
        return [_value(items, item, False, False) for item in default]
    if not isinstance(default, dict):
        raise ViolationError("an object", type(default).__name__)
    return {name: _value(items, item, False, False) for name, item in default.items()}
