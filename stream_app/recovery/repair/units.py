"""Converts between units with exact factors, so that a value is rounded once, at the end."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple


class Unit(NamedTuple):
    """A unit of a quantity: base = value x factor + offset, in the quantity's SI unit."""

    quantity: str
    factor: Fraction
    offset: Fraction = Fraction(0)


def _units(quantity: str, **factors: str) -> dict[str, Unit]:
    return {name: Unit(quantity, Fraction(factor)) for name, factor in factors.items()}


# Definitions: BIPM, The International System of Units, 9th ed.; NIST SP 811 (2008), appendix B, for the others.
_NAMED: Mapping[str, Unit] = {
    "K": Unit("temperature", Fraction(1)),
    "°C": Unit("temperature", Fraction(1), Fraction("273.15")),
    "°F": Unit("temperature", Fraction(5, 9), Fraction("459.67") * Fraction(5, 9)),
    "m/s": Unit("speed", Fraction(1)),
    "km/h": Unit("speed", Fraction(1000, 3600)),
    "mph": Unit("speed", Fraction("0.44704")),
    "kn": Unit("speed", Fraction(1852, 3600)),
    "g/m³": Unit("concentration", Fraction(1)),
    "mg/m³": Unit("concentration", Fraction("1e-3")),
    "µg/m³": Unit("concentration", Fraction("1e-6")),
    "ng/m³": Unit("concentration", Fraction("1e-9")),
    "%": Unit("ratio", Fraction(1, 100)),
    "1": Unit("ratio", Fraction(1)),
    **_units("length", m="1", km="1000", cm="1e-2", mm="1e-3", ft="0.3048", mi="1609.344"),
    "in": Unit("length", Fraction("0.0254")),
    **_units("mass", kg="1", g="1e-3", mg="1e-6", lb="0.45359237", oz="0.028349523125"),
    **_units("time", s="1", ms="1e-3", min="60", h="3600", d="86400"),
    **_units("pressure", Pa="1", hPa="100", kPa="1000", mbar="100", bar="1e5", atm="101325"),
    # Conventional millimetre of mercury, 133.322 387 415 Pa.
    **_units("pressure", mmHg="133.322387415", inHg="3386.388640341"),
}
# Alternative spellings in ASCII.
_ALIASES = {"C": "°C", "F": "°F", "knots": "kn", "kmh": "km/h", "kph": "km/h", "m3": "m³"}


def find_unit(name: str) -> Unit | None:
    """Return the unit of that name, None where it is unknown.

    `ug/m3`, `µg/m³` and `μg/m³` are the same.
    """
    normalized = name.strip().replace("μ", "µ").replace("m3", "m³").replace("ug/", "µg/")
    return _NAMED.get(_ALIASES.get(normalized, normalized))


def unit_names() -> list[str]:
    """Return the canonical name of every unit."""
    return list(_NAMED)


def convert(value: float, given: Unit, wanted: Unit) -> float:
    """Convert a value to another unit of the same quantity, rounded once.

    Raises ValueError for another quantity.
    """
    if given.quantity != wanted.quantity:
        raise ValueError(f"cannot convert {given.quantity} to {wanted.quantity}")
    base = Fraction(value) * given.factor + given.offset
    return float((base - wanted.offset) / wanted.factor)
