"""Base class of the readers of single values, and the parsers they share."""

from __future__ import annotations

from typing import Any

import msgspec

from stream_app.model.record import Code
from stream_app.pipeline.values.exact_numbers import Number, parse, to_integer
from stream_app.pipeline.values.violation import ViolationError, json_kind

AvroPrimitive = Any
"""A value as Avro's binary form encodes it: None, bool, int, float, bytes or str.

The schema decides which of them a `Scalar` receives, which the type checker cannot see; a check of each value would
slow down every Avro record.
"""

FieldValue = Any
"""The value of a field as its column holds it; its type depends on the field's kind, which only the schema tells."""

TEXT, NUMBER, BOOLEAN, NULL = "text", "a number", "a boolean", "null"
_QUOTE = ord('"')
_str = msgspec.json.Decoder(str).decode


class Scalar:
    """Reads single values of one Avro type from JSON, from Avro's binary form and from schema defaults.

    All sources of the same value give the same result. The methods raise ViolationError for a value that is not of
    the type. `arrived` is the record's arrival in milliseconds since 1970, or None to skip the check for times in a
    coarser unit.
    """

    expected: str
    kinds: frozenset[str] = frozenset()
    """The kinds of JSON values that may be of the type."""

    def from_json(self, raw: bytes, arrived: int | None) -> object:
        """Read the encoded JSON value `raw`."""
        kind = TEXT if raw[0] == _QUOTE else json_kind(raw)
        if kind not in self.kinds:
            raise self.violation(kind)
        return self.from_text(parse_text(raw), arrived) if kind == TEXT else self.from_number(raw, arrived)

    def from_text(self, value: str, arrived: int | None) -> object:
        """Read a decoded JSON string."""
        raise self.violation(TEXT)

    def from_number(self, raw: bytes, arrived: int | None) -> object:
        """Read the encoded JSON number `raw`."""
        raise self.violation(NUMBER)

    def from_avro(self, value: AvroPrimitive, arrived: int | None) -> object:
        """Convert a primitive value that was decoded from Avro's binary form."""
        raise NotImplementedError

    def from_default(self, value: object) -> object:
        """Convert a default as it is written in the schema."""
        raise NotImplementedError

    def violation(self, found: str) -> ViolationError:
        """Return the error for a value that is not of the type."""
        return ViolationError(self.expected, found)


def parse_text(raw: bytes) -> str:
    """Decode a JSON string."""
    try:
        return _str(raw)
    except UnicodeDecodeError as error:
        found = f"an invalid byte at position {error.start} of the value"
    except msgspec.DecodeError:
        found = "an invalid escape sequence or control character"
    raise ViolationError("text in UTF-8", found, Code.UNDECODABLE)


def parse_number(raw: bytes) -> Number:
    """Decode a JSON number without rounding."""
    number = parse(raw.decode("ascii"))
    if number is None:
        raise ViolationError("a number", "something else")
    return number


def parse_integer(raw: bytes, scalar: Scalar) -> int:
    """Decode a JSON number that must be an integer, in any notation: `100`, `1e2` and `100.0` are the same."""
    number = parse_number(raw)
    value = to_integer(number)
    if value is None:
        raise scalar.violation(
            "a number with a fraction" if number.decimals else f"a number of {number.places} digits"
        )
    return value


def integer_default(value: object, scalar: Scalar) -> int:
    """Check that a default of the schema is an integer, and return it."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise scalar.violation(type(value).__name__)
    return value
