"""A field's default as a column holds it."""

from __future__ import annotations

from typing import Any

from stream_app.pipeline.values.avro_types import AvroField, AvroType
from stream_app.pipeline.values.scalars import scalar_for
from stream_app.pipeline.values.violation import ViolationError

NO_VALUE = object()


def absent_value(field: AvroField, *, column: bool) -> Any:
    """What a field is where a record lacks it: its default, null where that is allowed, else NO_VALUE."""
    if field.has_default:
        return default_value(field, column=column)
    return None if field.type.nullable else NO_VALUE


def default_value(field: AvroField, *, column: bool) -> Any:
    """The default of a field that has one. Raises ViolationError where it is not of the field's type."""
    try:
        return _value(field.type, field.default, column, False)
    except ViolationError as error:
        raise error.within(f".{field.name}") from None


def _value(avro: AvroType, default: Any, column: bool, nullable: bool) -> Any:
    if avro.type == "union":
        return _of_union(avro, default, column)
    scalar = scalar_for(avro, column=column, nullable=nullable)
    if scalar is not None:
        return scalar.default(default)
    if avro.items is not None:
        return _items(avro, avro.items, default)
    if not isinstance(default, dict):
        raise ViolationError("an object", type(default).__name__)
    found = {}
    for field in avro.fields:
        if field.name in default:
            try:
                found[field.name] = _value(field.type, default[field.name], False, False)
            except ViolationError as error:
                raise error.within(f".{field.name}") from None
        elif field.has_default:
            found[field.name] = default_value(field, column=False)
        elif field.type.nullable:
            found[field.name] = None
        else:
            raise ViolationError(f"a field {field.name}", "none")
    return found


def _of_union(avro: AvroType, default: Any, column: bool) -> Any:
    column = column and sum(branch.type != "null" for branch in avro.branches) == 1
    errors = []
    for branch in avro.branches:
        try:
            return _value(branch, default, column, avro.nullable)
        except ViolationError as error:
            errors.append(error)
    raise errors[0] if errors else ViolationError("a value", "an empty union")


def _items(avro: AvroType, items: AvroType, default: Any) -> Any:
    if avro.type == "array":
        if not isinstance(default, list):
            raise ViolationError("an array", type(default).__name__)
        return [_value(items, item, False, False) for item in default]
    if not isinstance(default, dict):
        raise ViolationError("an object", type(default).__name__)
    return {name: _value(items, item, False, False) for name, item in default.items()}
