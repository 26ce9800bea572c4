"""Parsed Avro schemas as trees of types in which every named type is resolved."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

RawSchema = Any
"""A schema as JSON: a type name, a list of branches, or an object whose members depend on its type.

What comes from a user's file is validated by `schema_errors` and fastavro, not by the type checker.
"""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_MOST_DIGITS = 1_000
PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "string", "bytes"})


class Logical(NamedTuple):
    """A logical type: its family, and its ticks per second (times) or scale (decimals)."""

    family: str
    unit: int = 0


INSTANT, LOCAL, TIME_OF_DAY, DATE, DECIMAL, UUID = (
    "timestamp",
    "local-timestamp",
    "time",
    "date",
    "decimal",
    "uuid",
)
_UNITS = {"millis": 1_000, "micros": 1_000_000, "nanos": 1_000_000_000}
# Logical types by name and underlying type. The Avro specification says to ignore any other combination.
_LOGICAL = {
    **{(f"{INSTANT}-{name}", "long"): Logical(INSTANT, unit) for name, unit in _UNITS.items()},
    **{(f"{LOCAL}-{name}", "long"): Logical(LOCAL, unit) for name, unit in _UNITS.items()},
    ("time-millis", "int"): Logical(TIME_OF_DAY, 1_000),
    ("time-micros", "long"): Logical(TIME_OF_DAY, 1_000_000),
    ("date", "int"): Logical(DATE),
    ("uuid", "string"): Logical(UUID),
}


@dataclass(eq=False, slots=True)
class AvroField:
    """A field of a record type. `default` is as written in the schema."""

    name: str
    type: AvroType
    aliases: tuple[str, ...]
    has_default: bool
    default: object


@dataclass(eq=False, slots=True)
class AvroType:
    """One type.

    `type` is its Avro type name, `items` the type of an array's items or a map's values. A record may contain itself.
    """

    type: str
    logical: Logical | None = None
    name: str = ""
    size: int = 0
    precision: int = 0
    symbols: tuple[str, ...] = ()
    symbol_default: str | None = None
    items: AvroType | None = None
    fields: tuple[AvroField, ...] = ()
    branches: tuple[AvroType, ...] = field(default=())

    @property
    def nullable(self) -> bool:
        """Whether null is one of its values."""
        return self.type == "null" or any(branch.type == "null" for branch in self.branches)

    @property
    def logical_name(self) -> str:
        """The family of its logical type, or its Avro type name if it has none."""
        return self.type if self.logical is None else self.logical.family

    def __str__(self) -> str:
        if self.branches:
            return f"a union of {', '.join(map(str, self.branches))}"
        return self.name.split(".")[-1] or self.logical_name


def resolve_types(parsed: RawSchema) -> AvroType:
    """Build the tree of types of a schema that `fastavro.parse_schema` returned, in which all names are full names.

    Raises ValueError if a type is defined twice.
    """
    return _resolve(parsed, {})


def _resolve(parsed: RawSchema, known: dict[str, AvroType]) -> AvroType:
    if isinstance(parsed, list):
        return AvroType("union", branches=tuple(_resolve(branch, known) for branch in parsed))
    if isinstance(parsed, str):
        return known[parsed] if parsed in known else AvroType(parsed)
    kind = parsed["type"]
    if not isinstance(kind, str) or kind not in _COMPLEX:
        inner = _resolve(kind, known)
        if inner.type not in PRIMITIVES or inner.logical is not None:
            return inner
        return AvroType(inner.type, _logical(parsed, inner.type), precision=_precision(parsed))
    avro = AvroType(
        "record" if kind == "error" else kind,
        _logical(parsed, kind),
        parsed.get("name", ""),
        precision=_precision(parsed),
    )
    if avro.name:
        if avro.name in known:
            raise ValueError(f"the type {avro.name!r} is defined twice")
        known[avro.name] = avro
    if kind in ("array", "map"):
        avro.items = _resolve(parsed["items" if kind == "array" else "values"], known)
    avro.size = parsed.get("size", 0)
    avro.symbols, avro.symbol_default = tuple(parsed.get("symbols", ())), parsed.get("default")
    avro.fields = tuple(_field(item, known) for item in parsed.get("fields", ()))
    return avro


_COMPLEX = frozenset({"record", "error", "enum", "fixed", "array", "map"})


def _field(raw: RawSchema, known: dict[str, AvroType]) -> AvroField:
    inner = _resolve(raw["type"], known)
    return AvroField(raw["name"], inner, tuple(raw.get("aliases", ())), "default" in raw, raw.get("default"))


def _logical(raw: RawSchema, carrier: str) -> Logical | None:
    name = raw.get("logicalType")
    if name == DECIMAL and carrier in ("bytes", "fixed"):
        return Logical(DECIMAL, raw.get("scale", 0))
    if name == UUID and carrier == "fixed" and raw.get("size") == 16:
        return Logical(UUID)
    return _LOGICAL.get((name, carrier)) if isinstance(name, str) else None


def _precision(raw: RawSchema) -> int:
    return raw.get("precision", 0) if raw.get("logicalType") == DECIMAL else 0


def schema_errors(raw: RawSchema, path: str = "") -> Iterator[str]:
    """Yield a message with the path for each invalid name, empty union and invalid decimal of a schema."""
    if isinstance(raw, list):
        if not raw:
            yield f"field {path}: the union has no branches"
        for branch in raw:
            yield from schema_errors(branch, path)
    if not isinstance(raw, dict):
        return
    if raw.get("logicalType") == DECIMAL and raw.get("type") in ("bytes", "fixed"):
        error = _decimal_error(raw)
        if error:
            yield f"field {path}: {error}"
    for inner in ("type", "items", "values"):
        yield from schema_errors(raw.get(inner), path)
    fields = raw.get("fields")
    for item in fields if isinstance(fields, list) else ():
        if isinstance(item, dict) and isinstance(item.get("name"), str):
            name = item["name"]
            place = f"{path}.{name}" if path else name
            if not _NAME.fullmatch(name):
                yield (
                    f"field {place}: Avro names consist of letters, digits and underscores; rename the field and "
                    f"add {name!r} as an alias"
                )
            yield from schema_errors(item.get("type"), place)


def _decimal_error(raw: RawSchema) -> str | None:
    precision, scale = raw.get("precision"), raw.get("scale", 0)
    if type(precision) is not int or not 1 <= precision <= _MOST_DIGITS:
        found = "no precision" if precision is None else f"the precision {precision!r}"
        return f"a decimal has {found}, expected a whole number from 1 to {_MOST_DIGITS}"
    if type(scale) is not int or not 0 <= scale <= precision:
        return (
            f"a decimal has the scale {scale!r}, expected a whole number from 0 to its precision, {precision}"
        )
    size = raw.get("size")
    if raw["type"] == "fixed" and type(size) is int and 10**precision > 2 ** (8 * size - 1):
        return f"a decimal of {precision} digits does not fit into {size} bytes"
    return None
