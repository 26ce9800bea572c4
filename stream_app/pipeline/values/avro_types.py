"""Avro schemas as trees of types in which every name is resolved."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_MOST_DIGITS = 1_000
PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "string", "bytes"})


class Logical(NamedTuple):
    """A logical type: its family, and ticks per second, or a decimal's scale."""

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
# Logical types with the type that carries them. Any other pair is passed over, as Avro says.
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
    """A field of a record type; `default` is as the schema writes it."""

    name: str
    type: AvroType
    aliases: tuple[str, ...]
    has_default: bool
    default: Any


@dataclass(eq=False, slots=True)
class AvroType:
    """One type. `type` is Avro's name of it; `items` are an array's or a map's; types may contain themselves."""

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
        """Whether null is a value of it."""
        return self.type == "null" or any(branch.type == "null" for branch in self.branches)

    @property
    def logical_name(self) -> str:
        """The family of its logical type, else Avro's name of it."""
        return self.type if self.logical is None else self.logical.family

    def __str__(self) -> str:
        if self.branches:
            return f"a union of {', '.join(map(str, self.branches))}"
        return self.name.split(".")[-1] or self.logical_name


def resolve_types(parsed: Any) -> AvroType:
    """The tree of a schema that `fastavro.parse_schema` returned: its names are full names."""
    return _resolved(parsed, {})


def _resolved(parsed: Any, known: dict[str, AvroType]) -> AvroType:
    if isinstance(parsed, list):
        return AvroType("union", branches=tuple(_resolved(branch, known) for branch in parsed))
    if isinstance(parsed, str):
        return known[parsed] if parsed in known else AvroType(parsed)
    kind = parsed["type"]
    if not isinstance(kind, str) or kind not in _COMPLEX:
        inner = _resolved(kind, known)
        if inner.type not in PRIMITIVES or inner.logical is not None:
            return inner
        return AvroType(inner.type, _logical(parsed, inner.type), precision=_precision(parsed))
    made = AvroType(
        "record" if kind == "error" else kind,
        _logical(parsed, kind),
        parsed.get("name", ""),
        precision=_precision(parsed),
    )
    if made.name:
        if made.name in known:
            raise ValueError(f"the type {made.name!r} is defined twice")
        known[made.name] = made
    if kind in ("array", "map"):
        made.items = _resolved(parsed["items" if kind == "array" else "values"], known)
    made.size = parsed.get("size", 0)
    made.symbols, made.symbol_default = tuple(parsed.get("symbols", ())), parsed.get("default")
    made.fields = tuple(_field(item, known) for item in parsed.get("fields", ()))
    return made


_COMPLEX = frozenset({"record", "error", "enum", "fixed", "array", "map"})


def _field(raw: dict[str, Any], known: dict[str, AvroType]) -> AvroField:
    inner = _resolved(raw["type"], known)
    return AvroField(raw["name"], inner, tuple(raw.get("aliases", ())), "default" in raw, raw.get("default"))


def _logical(raw: dict[str, Any], carrier: str) -> Logical | None:
    name = raw.get("logicalType")
    if name == DECIMAL and carrier in ("bytes", "fixed"):
        return Logical(DECIMAL, raw.get("scale", 0))
    if name == UUID and carrier == "fixed" and raw.get("size") == 16:
        return Logical(UUID)
    return _LOGICAL.get((name, carrier)) if isinstance(name, str) else None


def _precision(raw: dict[str, Any]) -> int:
    return raw.get("precision", 0) if raw.get("logicalType") == DECIMAL else 0


def schema_errors(raw: Any, path: str = "") -> Iterator[str]:
    """What is wrong with names and decimals of a schema, in words that say where."""
    if isinstance(raw, list):
        if not raw:
            yield f"field {path}: a union of no types"
        for branch in raw:
            yield from schema_errors(branch, path)
    if not isinstance(raw, dict):
        return
    if raw.get("logicalType") == DECIMAL and raw.get("type") in ("bytes", "fixed"):
        wrong = _wrong_decimal(raw)
        if wrong:
            yield f"field {path}: {wrong}"
    for inner in ("type", "items", "values"):
        yield from schema_errors(raw.get(inner), path)
    fields = raw.get("fields")
    for item in fields if isinstance(fields, list) else ():
        if isinstance(item, dict) and isinstance(item.get("name"), str):
            name = item["name"]
            place = f"{path}.{name}" if path else name
            if not _NAME.fullmatch(name):
                yield (
                    f"field {place}: Avro names are made of letters, digits and underscores; use such a name, and "
                    f"{name!r} as an alias"
                )
            yield from schema_errors(item.get("type"), place)


def _wrong_decimal(raw: dict[str, Any]) -> str | None:
    precision, scale = raw.get("precision"), raw.get("scale", 0)
    if type(precision) is not int or not 1 <= precision <= _MOST_DIGITS:
        said = "no precision" if precision is None else f"the precision {precision!r}"
        return f"a decimal has {said}, expected a whole number from 1 to {_MOST_DIGITS}"
    if type(scale) is not int or not 0 <= scale <= precision:
        return (
            f"a decimal has the scale {scale!r}, expected a whole number from 0 to its precision, {precision}"
        )
    size = raw.get("size")
    if raw["type"] == "fixed" and type(size) is int and 10**precision > 2 ** (8 * size - 1):
        return f"a decimal of {precision} digits does not fit into {size} bytes"
    return None
