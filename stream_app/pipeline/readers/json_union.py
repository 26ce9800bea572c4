"""Selects the branch of a union by the kind of the JSON value."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stream_app.pipeline.values.avro_types import AvroType
from stream_app.pipeline.values.exact_numbers import to_integer
from stream_app.pipeline.values.scalar import NULL, NUMBER, parse_number
from stream_app.pipeline.values.scalars import scalar_for
from stream_app.pipeline.values.violation import ViolationError, json_kind

Read = Callable[[bytes, int | None], object]
_OBJECT, _ARRAY = "an object", "an array"
_INTEGER_BYTES = frozenset(b"-0123456789")


class UnionReader:
    """Reads values of a union of several types.

    A number that is an integer in range is read as the union's integer type, any other number as its floating-point
    type, else as a decimal or a time. A value that several branches accept is rejected: Avro's binary encoding tells
    the branches apart, JSON does not.
    """

    def __init__(self, avro: AvroType, branches: Sequence[AvroType], reads: Sequence[Read]) -> None:
        self._nullable, self._expected = avro.nullable, str(avro)
        self._by_kind: dict[str, list[tuple[AvroType, Read]]] = {}
        for branch, read in zip(branches, reads, strict=True):
            for kind in _kinds(branch):
                self._by_kind.setdefault(kind, []).append((branch, read))

    def read(self, raw: bytes, arrived: int | None) -> object:
        """Read the encoded JSON value `raw`."""
        kind = json_kind(raw)
        if kind == NULL and self._nullable:
            return None
        candidates = self._by_kind.get(kind, [])
        if kind == NUMBER and len(candidates) > 1:
            candidates = _number_branches(candidates, raw)
        if len(candidates) == 1:
            return candidates[0][1](raw, arrived)
        if not candidates:
            raise ViolationError(self._expected, kind)
        names = " or ".join(str(branch) for branch, _ in candidates)
        raise ViolationError(
            "a value that matches only one branch (send Avro)", f"{kind} that may be {names}"
        )


def _kinds(avro: AvroType) -> frozenset[str]:
    scalar = scalar_for(avro, column=False, nullable=False)
    if scalar is not None:
        return scalar.kinds
    return frozenset({_ARRAY if avro.type == "array" else _OBJECT})


def _number_branches(candidates: list[tuple[AvroType, Read]], raw: bytes) -> list[tuple[AvroType, Read]]:
    """Return the branches that may hold this number."""
    wholes = [one for one in candidates if one[0].logical is None and one[0].type in ("int", "long")]
    reals = [one for one in candidates if one[0].type in ("float", "double")]
    others = [one for one in candidates if one not in wholes and one not in reals]
    if wholes and (not reals or _INTEGER_BYTES.issuperset(raw)):
        value = to_integer(parse_number(raw))
        widest = max(wholes, key=lambda one: one[0].type == "long")
        bits = 63 if widest[0].type == "long" else 31
        if value is not None and -(2**bits) <= value < 2**bits:
            times = [one for one in others if one[0].type in ("int", "long")]
            return [widest, *times]
    if reals:
        return [max(reals, key=lambda one: one[0].type == "double")]
    return others or wholes[:1]
