"""What the ways to read a single value share."""

from __future__ import annotations

from typing import Any

import msgspec

from stream_app.model.record import Code
from stream_app.pipeline.values.exact_numbers import Number, parse, to_integer
from stream_app.pipeline.values.violation import ViolationError, json_kind

TEXT, NUMBER, BOOLEAN, NULL = "text", "a number", "a boolean", "null"
_QUOTE = ord('"')
_str = msgspec.json.Decoder(str).decode


class Scalar:
    """Reads single values of one Avro type; each way in gives the same for the same value.

    All raise ViolationError for what is not of the type. `arrived` is the record's arrival in milliseconds since
    1970, None where no value is to be compared with it.
    """

    expected: str
    # The kinds of JSON values that may be of the type.
    kinds: frozenset[str] = frozenset()

    def json(self, raw: bytes, arrived: int | None) -> Any:
        """The value of a JSON value's bytes."""
        kind = TEXT if raw[0] == _QUOTE else json_kind(raw)
        if kind not in self.kinds:
            raise self.wrong(kind)
        return self.text(parse_text(raw), arrived) if kind == TEXT else self.number(raw, arrived)

    def text(self, value: str, arrived: int | None) -> Any:
        """The value of a JSON text."""
        raise self.wrong(TEXT)

    def number(self, raw: bytes, arrived: int | None) -> Any:
        """The value of a JSON number's bytes."""
        raise self.wrong(NUMBER)

    def carried(self, value: Any, arrived: int | None) -> Any:
        """The value of what Avro's binary form carries."""
        raise NotImplementedError

    def default(self, value: Any) -> Any:
        """The value of a default as a schema writes it."""
        raise NotImplementedError

    def wrong(self, found: str) -> ViolationError:
        """The error for a value that is not of the type."""
        return ViolationError(self.expected, found)


def parse_text(raw: bytes) -> str:
    """The text that JSON's bytes say."""
    try:
        return _str(raw)
    except UnicodeDecodeError as error:
        found = f"a byte that is not, at position {error.start} of its value"
    except msgspec.DecodeError:
        found = "an escape or a control character that is not"
    raise ViolationError("text in UTF-8", found, Code.UNDECODABLE)


def parse_number(raw: bytes) -> Number:
    """The number that JSON's bytes say."""
    number = parse(raw.decode("ascii"))
    if number is None:
        raise ViolationError("a number", "something else")
    return number


def parse_integer(raw: bytes, scalar: Scalar) -> int:
    """The whole number that JSON's bytes say, in whatever way it is written."""
    number = parse_number(raw)
    value = to_integer(number)
    if value is None:
        raise scalar.wrong(
            "a number with a fraction" if number.decimals else f"a number of {number.places} digits"
        )
    return value


def integer_default(value: Any, scalar: Scalar) -> int:
    """A whole number as a schema writes it."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise scalar.wrong(type(value).__name__)
    return value
