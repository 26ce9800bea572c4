"""Whether two versions of a schema that share a fingerprint also share the meaning of their bytes."""

from __future__ import annotations

from stream_app.pipeline.readers.avro_conversion import same_logical_type
from stream_app.pipeline.values.avro_types import AvroType


def first_difference(one: AvroType, other: AvroType) -> str | None:
    """The path of the first value that means something else in the other version; None where all are the same.

    Both have the same canonical form, in which Avro keeps neither logical types nor a decimal's scale.
    """
    return _different(one, other, set())


def _different(one: AvroType, other: AvroType, known: set[int]) -> str | None:
    if id(one) in known:
        return None
    known.add(id(one))
    if not same_logical_type(one, other):
        return ""
    parts = [(".", a, b) for a, b in zip(one.branches, other.branches, strict=False)]
    if one.items is not None and other.items is not None:
        parts.append(("[]", one.items, other.items))
    parts += [(f".{a.name}", a.type, b.type) for a, b in zip(one.fields, other.fields, strict=False)]
    for step, a, b in parts:
        found = _different(a, b, known)
        if found is not None:
            return (step + found).removeprefix(".")
    return None
