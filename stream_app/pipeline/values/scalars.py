"""Single values by Avro type, dates and times aside."""

from __future__ import annotations

import binascii
import math
import re
import struct
from base64 import b64decode, b64encode
from typing import Any

import msgspec

from stream_app.pipeline.values.avro_types import DECIMAL, UUID, AvroType
from stream_app.pipeline.values.scalar import (
    BOOLEAN,
    NULL,
    NUMBER,
    TEXT,
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

    def json(self, raw: bytes, arrived: int | None) -> Any:
        if raw != b"null":
            raise self.wrong(json_kind(raw))

    def carried(self, value: Any, arrived: int | None) -> Any:
        return None

    def default(self, value: Any) -> Any:
        if value is not None:
            raise self.wrong(type(value).__name__)


class _Boolean(Scalar):
    expected = "a boolean"
    kinds = frozenset({BOOLEAN})

    def json(self, raw: bytes, arrived: int | None) -> Any:
        if raw not in (b"true", b"false"):
            raise self.wrong(json_kind(raw))
        return raw == b"true"

    def carried(self, value: Any, arrived: int | None) -> Any:
        return value

    def default(self, value: Any) -> Any:
        if not isinstance(value, bool):
            raise self.wrong(type(value).__name__)
        return value


class _Whole(Scalar):
    kinds = frozenset({NUMBER})

    def __init__(self, name: str) -> None:
        self._low, self._high = _RANGES[name]
        self.expected = f"a whole number of {32 if name == 'int' else 64} bits"

    def number(self, raw: bytes, arrived: int | None) -> Any:
        return self.carried(parse_integer(raw, self), arrived)

    def carried(self, value: Any, arrived: int | None) -> Any:
        if not self._low <= value <= self._high:
            raise self.wrong("one that is larger")
        return value

    def default(self, value: Any) -> Any:
        return self.carried(integer_default(value, self), None)


class _Real(Scalar):
    """`float` and `double`. Text of JSON has no infinity and no NaN: only a `column` of numbers can hold them."""

    kinds = frozenset({NUMBER})

    def __init__(self, name: str, column: bool, nullable: bool) -> None:
        self._single, self._column, self._nullable = name == "float", column, nullable
        self.expected = f"a number of {32 if self._single else 64} bits"

    def number(self, raw: bytes, arrived: int | None) -> Any:
        try:
            value = _float(raw)
        except msgspec.DecodeError:
            raise self.wrong("one that is larger") from None
        if self._single and abs(value) > LARGEST_SINGLE:
            raise self.wrong("one that is larger")
        return self._rounded(value)

    def carried(self, value: Any, arrived: int | None) -> Any:
        number = float(value)
        if not (self._column or math.isfinite(number)):
            if self._nullable and math.isnan(number):
                return None
            raise self.wrong("NaN" if math.isnan(number) else "infinity")
        return self._rounded(number)

    def default(self, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.wrong(type(value).__name__)
        if abs(value) > (LARGEST_SINGLE if self._single else 2**1024 - 2**970):
            raise self.wrong("one that is larger")
        return self._rounded(float(value))

    def _rounded(self, value: float) -> float:
        rounded: float = _single.unpack(_single.pack(value))[0] if self._single else value
        return rounded


class _Text(Scalar):
    expected = "text"
    kinds = frozenset({TEXT})

    def text(self, value: str, arrived: int | None) -> Any:
        return value

    def carried(self, value: Any, arrived: int | None) -> Any:
        if isinstance(value, str):
            return value
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise self.wrong(f"bytes that are not UTF-8, at position {error.start}") from None

    def default(self, value: Any) -> Any:
        if not isinstance(value, str):
            raise self.wrong(type(value).__name__)
        try:
            value.encode()
        except UnicodeEncodeError:
            raise self.wrong("text that is not Unicode") from None
        return value


class _Bytes(Scalar):
    """`bytes` and `fixed`, as base64."""

    kinds = frozenset({TEXT})

    def __init__(self, size: int | None) -> None:
        self._size = size
        self.expected = "bytes as base64" if size is None else f"{size} bytes as base64"

    def text(self, value: str, arrived: int | None) -> Any:
        try:
            return self.carried(b64decode(value.encode("ascii"), validate=True), arrived)
        except (binascii.Error, UnicodeEncodeError):
            raise self.wrong("text that is not") from None

    def carried(self, value: Any, arrived: int | None) -> Any:
        data = value.encode() if isinstance(value, str) else value
        if self._size is not None and len(data) != self._size:
            raise self.wrong(f"{len(data)} bytes")
        return b64encode(data).decode()

    def default(self, value: Any) -> Any:
        return self.carried(default_bytes(value, self), None)


class _Enum(Scalar):
    kinds = frozenset({TEXT})

    def __init__(self, avro: AvroType) -> None:
        self._symbols = frozenset(avro.symbols)
        self.expected = f"a symbol of {avro.name.split('.')[-1]}"

    def text(self, value: str, arrived: int | None) -> Any:
        return self.carried(value, arrived)

    def carried(self, value: Any, arrived: int | None) -> Any:
        if value not in self._symbols:
            raise self.wrong("text that is none")
        return value

    def default(self, value: Any) -> Any:
        if not isinstance(value, str):
            raise self.wrong(type(value).__name__)
        return self.carried(value, None)


class _Uuid(Scalar):
    """A UUID, as text in its canonical form."""

    expected = "a UUID"
    kinds = frozenset({TEXT})

    def text(self, value: str, arrived: int | None) -> Any:
        found = _UUID.fullmatch(value)
        if found is None:
            raise self.wrong("text that is not")
        return "-".join(found.groups()[1:]).lower()

    def carried(self, value: Any, arrived: int | None) -> Any:
        if isinstance(value, bytes) and len(value) == 16:
            return self.text(value.hex(), arrived)
        return self.text(_Text().carried(value, arrived), arrived)

    def default(self, value: Any) -> Any:
        """A text of 16 characters is that of 16 bytes, as the default of a `fixed` is written."""
        if not isinstance(value, str):
            raise self.wrong(type(value).__name__)
        return self.carried(default_bytes(value, self) if len(value) == 16 else value, None)


def scalar_for(avro: AvroType, *, column: bool, nullable: bool) -> Scalar | None:
    """How single values of a type are read; None for a type that contains others.

    `column`: the value stands in a column of its own kind, else inside JSON; `nullable`: null may take its place.
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
