"""Parses numbers from text without rounding, in time proportional to the text, whatever the exponent."""

from __future__ import annotations

import re
from typing import NamedTuple

_NUMBER = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?)0*([0-9]*))?", re.ASCII)
# Longer exponents are clamped: no type can represent such a number.
_EXPONENT_DIGITS = 9
_LONG_DIGITS = 19


class Number(NamedTuple):
    """The number ±`digits` × 10^`exponent`.

    `digits` has no leading or trailing zeros and is empty for the number 0.
    """

    negative: bool
    digits: str
    exponent: int

    @property
    def decimals(self) -> int:
        """The number of digits after the decimal point."""
        return max(0, -self.exponent) if self.digits else 0

    @property
    def places(self) -> int:
        """The number of digits before the decimal point; zero or negative for a number below 0.1."""
        return len(self.digits) + self.exponent if self.digits else 0


def parse(text: str) -> Number | None:
    """Parse a number in decimal or scientific notation; return None for any other text."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    sign, before, after, exponent_sign, exponent_digits = found.groups()
    if not (before or after) or (exponent_digits == "" and text[-1] != "0"):
        return None
    digits = (before + (after or "")).lstrip("0")
    if not digits:
        return Number(False, "", 0)
    size = exponent_digits or "0"
    exponent = 10**_EXPONENT_DIGITS if len(size) > _EXPONENT_DIGITS else int(size)
    exponent = (-exponent if exponent_sign == "-" else exponent) - len(after or "")
    shorter = digits.rstrip("0")
    return Number(sign == "-", shorter, exponent + len(digits) - len(shorter))


def to_integer(number: Number) -> int | None:
    """Convert to an int; return None for a number with a fraction or with more than 19 digits."""
    if number.decimals or number.places > _LONG_DIGITS:
        return None
    value: int = int(number.digits or "0") * 10**number.exponent
    return -value if number.negative else value


def fixed_point(unscaled: int, scale: int) -> str:
    """Format `unscaled` × 10^-`scale` with `scale` digits after the point, never in scientific notation."""
    digits = str(abs(unscaled)).rjust(scale + 1, "0")
    sign = "-" if unscaled < 0 else ""
    return f"{sign}{digits[:-scale]}.{digits[-scale:]}" if scale else sign + digits
