"""The decimal logical type: exact values, checked against precision and scale."""

from __future__ import annotations

from stream_app.pipeline.values.exact_numbers import Number, fixed_point, parse
from stream_app.pipeline.values.scalar import NUMBER, TEXT, AvroPrimitive, Scalar, parse_number


class Decimal(Scalar):
    """Reads decimals as text in fixed-point notation with `scale` digits after the point."""

    kinds = frozenset({TEXT, NUMBER})

    def __init__(self, precision: int, scale: int) -> None:
        self._precision, self._scale = precision, scale
        self.expected = f"a decimal of at most {precision} digits, {scale} of them after the point"

    def from_number(self, raw: bytes, arrived: int | None) -> object:
        """Read a JSON number from its digits."""
        return self._scaled(parse_number(raw))

    def from_text(self, value: str, arrived: int | None) -> object:
        """Read a number in a JSON string."""
        number = parse(value)
        if number is None:
            raise self.violation("text that is not a number")
        return self._scaled(number)

    def _scaled(self, number: Number) -> str:
        if number.decimals > self._scale:
            raise self.violation(f"{number.decimals} digits after the point")
        if number.places + self._scale > self._precision:
            raise self.violation(f"{number.places} digits before the point")
        unscaled = int(number.digits or "0") * 10 ** (number.exponent + self._scale)
        return fixed_point(-unscaled if number.negative else unscaled, self._scale)

    def from_avro(self, value: AvroPrimitive, arrived: int | None) -> object:
        """Convert Avro's unscaled integer, big-endian two's complement."""
        data = value.encode() if isinstance(value, str) else value
        if not data:
            raise self.violation("no bytes")
        return self.from_unscaled(int.from_bytes(data, "big", signed=True), self._scale)

    def from_unscaled(self, value: int, scale: int) -> str:
        """Convert `value` × 10^-`scale`; `scale` is the writer's, which may differ from the reader's."""
        value, rest = divmod(value * 10 ** max(0, self._scale - scale), 10 ** max(0, scale - self._scale))
        if rest:
            raise self.violation("more digits after the point")
        if abs(value) >= 10**self._precision:
            raise self.violation("more digits")
        return fixed_point(value, self._scale)

    def from_default(self, value: object) -> object:
        """Convert a default: Avro's bytes, written as text."""
        return self.from_avro(default_bytes(value, self), None)


def default_bytes(value: object, scalar: Scalar) -> bytes:
    """Return the bytes of a default. Schemas write bytes as text, one character (U+0000 to U+00FF) for each byte."""
    if not isinstance(value, str):
        raise scalar.violation(type(value).__name__)
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        raise scalar.violation(type(value).__name__) from None
