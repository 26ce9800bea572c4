"""Compares schema versions that share a fingerprint but may differ in logical types."""

from __future__ import annotations

from stream_app.pipeline.readers.avro_conversion import same_logical_type
from stream_app.pipeline.values.avro_types import AvroType


def first_difference(one: AvroType, other: AvroType) -> str | None:
    """Return the path of the first value whose bytes have another meaning in the other version, or None.

    Both types must have the same parsing canonical form, which omits logical types and the scale of decimals.
    """
    return _first_difference(one, other, set())


def _first_difference(one: AvroType, other: AvroType, visited: set[int]) -> str | None:
    if id(one) in visited:
        return None
    visited.add(id(one))
    if not same_logical_type(one, other):
        return ""
    parts = [(".", a, b) for a, b in zip(one.branches, other.branches, strict=False)]
    if one.items is not None and other.items is not None:
        parts.append(("[]", one.items, other.items))
    parts += [(f".{a.name}", a.type, b.type) for a, b in zip(one.fields, other.fields, strict=False)]
    for step, a, b in parts:
        path = _first_difference(a, b, visited)
        if path is not None:
            return (step + path).removeprefix(".")
    return None
