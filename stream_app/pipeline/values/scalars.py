"""The readers of single values of each Avro type, except dates and times."""

from __future__ import annotations

import binascii
import math
import re
import struct
from base64 import b64decode, b64encode

import msgspec

from stream_app.pipeline.values.avro_types import DECIMAL, UUID, AvroType
from stream_app.pipeline.values.scalar import (
    BOOLEAN,
    NULL,
    NUMBER,
    TEXT,
    AvroPrimitive,
    Scalar,
    integer_default,
    parse_integer,
)
from stream_app.pipeline.values.scalar_decimal import Decimal, default_bytes
from stream_app.pipeline.values.scalar_times import time_scalar
from stream_app.pipeline.values.violation import json_kind

_RANGES = {"int": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
LARGEST_SINGLE = 2.0**128 - 2.0**104
_single = struct.Struct("<f")
_float = msgspec.json.Decoder(float).decode
_UUID = re.compile(
    r"(?:urn:uuid:)?(\{)?([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})(?(1)\})",
    re.ASCII | re.IGNORECASE,
)


class _Null(Scalar):
    expected = "null"
    kinds = frozenset({NULL})

    def from_json(self, raw: bytes, arrived: int | None) -> None:
        if raw != b"null":
            raise self.violation(json_kind(raw))

    def from_avro(self, value: AvroPrimitive, arrived: int | None) -> object:
        return None

    def from_default(self, value: object) -> None:
        if value is not None:
            raise self.violation(type(value).__name__)


class _Boolean(Scalar):
    expected = "a boolean"
    kinds = frozenset({BOOLEAN})

    def from_json(self, raw: bytes, arrived: int | None) -> object:
        if raw not in (b"true", b"false"):
            raise self.violation(json_kind(raw))
        return raw == b"true"

    def from_avro(self, value: AvroPrimitive, arrived: int | None) -> object:
        return value

    def from_default(self, value: object) -> object:
        if not isinstance(value, bool):
            raise self.violation(type(value).__name__)
        return value


class _Whole(Scalar):
    kinds = frozenset({NUMBER})

    def __init__(self, name: str) -> None:
        self._low, self._high = _RANGES[name]
        self.expected = f"a whole number of {32 if name == 'int' else 64} bits"

    def from_number(self, raw: bytes, arrived: int | None) -> object:
        return self.from_avro(parse_integer(raw, self), arrived)

    def from_avro(self, value: AvroPrimitive, arrived: int | None) -> object:
        if not self._low <= value <= self._high:
            raise self.violation("a number out of range")
        return value

    def from_default(self, value: object) -> object:
        return self.from_avro(integer_default(value, self), None)


class _Real(Scalar):
    """`float` and `double`.

    JSON has neither infinity nor NaN: only a numeric `column` can hold them. Elsewhere NaN becomes null in a
    `nullable` type, and is rejected in any other.
    """

    kinds = frozenset({NUMBER})

    def __init__(self, name: str, column: bool, nullable: bool) -> None:
        self._single, self._column, self._nullable = name == "float", column, nullable
        self.expected = f"a number of {32 if self._single else 64} bits"

    def from_number(self, raw: bytes, arrived: int | None) -> object:
        try:
            value = _float(raw)
        except msgspec.DecodeError:
            raise self.violation("a number out of range") from None
        if self._single and abs(value) > LARGEST_SINGLE:
            raise self.violation("a number out of range")
        return self._rounded(value)

    def from_avro(self, value: AvroPrimitive, arrived: int | None) -> object:
        number = float(value)
        if not (self._column or math.isfinite(number)):
            if self._nullable and math.isnan(number):
                return None
            raise self.violation("NaN" if math.isnan(number) else "infinity")
        return self._rounded(number)

    def from_default(self, value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.violation(type(value).__name__)
        if abs(value) > (LARGEST_SINGLE if self._single else 2**1024 - 2**970):
            raise self.violation("a number out of range")
        return self._rounded(float(value))

    def _rounded(self, value: float) -> float:
        rounded: float = _single.unpack(_single.pack(value))[0] if self._single else value
        return rounded


class _Text(Scalar):
    expected = "text"
    kinds = frozenset({TEXT})

    def from_text(self, value: str, arrived: int | None) -> object:
        return value

    def from_avro(self, value: AvroPrimitive, arrived: int | None) -> str:
        if isinstance(value, str):
            return value
        try:
            text: str = value.decode()
        except UnicodeDecodeError as error:
            raise self.violation(f"an invalid byte for UTF-8 at position {error.start}") from None
        return text

    def from_default(self, value: object) -> object:
        if not isinstance(value, str):
            raise self.violation(type(value).__name__)
        try:
            value.encode()
        except UnicodeEncodeError:
            raise self.violation("text that is not Unicode") from None
        return value


class _Bytes(Scalar):
    """`bytes` and `fixed`, as base64 text."""

    kinds = frozenset({TEXT})

    def __init__(self, size: int | None) -> None:
        self._size = size
        self.expected = "bytes as base64" if size is None else f"{size} bytes as base64"

    def from_text(self, value: str, arrived: int | None) -> object:
        try:
            return self.from_avro(b64decode(value.encode("ascii"), validate=True), arrived)
        except (binascii.Error, UnicodeEncodeError):
            raise self.violation("text that is not base64") from None

    def from_avro(self, value: AvroPrimitive, arrived: int | None) -> object:
        data = value.encode() if isinstance(value, str) else value
        if self._size is not None and len(data) != self._size:
            raise self.violation(f"{len(data)} bytes")
        return b64encode(data).decode()

    def from_default(self, value: object) -> object:
        return self.from_avro(default_bytes(value, self), None)


class _Enum(Scalar):
    kinds = frozenset({TEXT})

    def __init__(self, avro: AvroType) -> None:
        self._symbols = frozenset(avro.symbols)
        self.expected = f"a symbol of {avro.name.split('.')[-1]}"

    def from_text(self, value: str, arrived: int | None) -> object:
        return self.from_avro(value, arrived)

    def from_avro(self, value: AvroPrimitive, arrived: int | None) -> object:
        if value not in self._symbols:
            raise self.violation("an unknown symbol")
        return value

    def from_default(self, value: object) -> object:
        if not isinstance(value, str):
            raise self.violation(type(value).__name__)
        return self.from_avro(value, None)


class _Uuid(Scalar):
    """`uuid`, as text in canonical form."""

    expected = "a UUID"
    kinds = frozenset({TEXT})

    def from_text(self, value: str, arrived: int | None) -> object:
        found = _UUID.fullmatch(value)
        if found is None:
            raise self.violation("invalid text")
        return "-".join(found.groups()[1:]).lower()

    def from_avro(self, value: AvroPrimitive, arrived: int | None) -> object:
        if isinstance(value, bytes) and len(value) == 16:
            return self.from_text(value.hex(), arrived)
        return self.from_text(_Text().from_avro(value, arrived), arrived)

    def from_default(self, value: object) -> object:
        """Convert text of a UUID, or 16 characters for the 16 bytes of a `fixed`."""
        if not isinstance(value, str):
            raise self.violation(type(value).__name__)
        return self.from_avro(default_bytes(value, self) if len(value) == 16 else value, None)


def scalar_for(avro: AvroType, *, column: bool, nullable: bool) -> Scalar | None:
    """Return the reader of single values of a type; None for records, arrays, maps and unions.

    `column`: the value is stored in a column of its own kind rather than inside JSON. `nullable`: the value is a
    branch of a union with null.
    """
    family = avro.logical.family if avro.logical is not None else ""
    if family == DECIMAL:
        return Decimal(avro.precision, avro.logical.unit if avro.logical else 0)
    if family == UUID:
        return _Uuid()
    time = time_scalar(avro, column)
    if time is not None:
        return time
    match avro.type:
        case "null":
            return _Null()
        case "boolean":
            return _Boolean()
        case "int" | "long":
            return _Whole(avro.type)
        case "float" | "double":
            return _Real(avro.type, column, nullable)
        case "string":
            return _Text()
        case "bytes" | "fixed":
            return _Bytes(avro.size if avro.type == "fixed" else None)
        case "enum":
            return _Enum(avro)
    return None
