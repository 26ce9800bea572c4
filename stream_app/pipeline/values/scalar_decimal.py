"""Decimals: exact, within their precision and scale."""

from __future__ import annotations

from typing import Any

from stream_app.pipeline.values.exact_numbers import Number, fixed_point, parse
from stream_app.pipeline.values.scalar import NUMBER, TEXT, Scalar, parse_number


class Decimal(Scalar):
    """A decimal, as text in fixed-point notation with the digits that its scale asks for."""

    kinds = frozenset({TEXT, NUMBER})

    def __init__(self, precision: int, scale: int) -> None:
        self._precision, self._scale = precision, scale
        self.expected = f"a decimal of at most {precision} digits, {scale} of them after the point"

    def number(self, raw: bytes, arrived: int | None) -> Any:
        """A JSON number, read from its digits."""
        return self._scaled(parse_number(raw))

    def text(self, value: str, arrived: int | None) -> Any:
        """A number as text."""
        number = parse(value)
        if number is None:
            raise self.wrong("text that is not a number")
        return self._scaled(number)

    def _scaled(self, number: Number) -> str:
        if number.decimals > self._scale:
            raise self.wrong(f"{number.decimals} digits after the point")
        if number.places + self._scale > self._precision:
            raise self.wrong(f"{number.places} digits before the point")
        unscaled = int(number.digits or "0") * 10 ** (number.exponent + self._scale)
        return fixed_point(-unscaled if number.negative else unscaled, self._scale)

    def carried(self, value: Any, arrived: int | None) -> Any:
        """Avro's unscaled number, big-endian two's complement."""
        data = value.encode() if isinstance(value, str) else value
        if not data:
            raise self.wrong("no bytes")
        return self.unscaled(int.from_bytes(data, "big", signed=True), self._scale)

    def unscaled(self, value: int, scale: int) -> str:
        """Read the decimal `value` × 10^-`scale`; a scale of a writer's own may be another."""
        value, rest = divmod(value * 10 ** max(0, self._scale - scale), 10 ** max(0, scale - self._scale))
        if rest:
            raise self.wrong("more digits after the point")
        if abs(value) >= 10**self._precision:
            raise self.wrong("more digits")
        return fixed_point(value, self._scale)

    def default(self, value: Any) -> Any:
        """The same bytes as text."""
        return self.carried(default_bytes(value, self), None)


def default_bytes(value: Any, scalar: Scalar) -> bytes:
    """The bytes of a default, which a schema writes as text, a character a byte."""
    try:
        data: bytes = value.encode("latin-1")
    except (AttributeError, UnicodeEncodeError):
        raise scalar.wrong(type(value).__name__) from None
    return data
