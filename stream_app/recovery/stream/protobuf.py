"""Protocol Buffers wire format, parsed as strictly as by the Java library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
START_GROUP: Final = 3
END_GROUP: Final = 4
FIXED32: Final = 5
_DEPTH = 100  # of nested groups, as in the Java library
_TO_INT, _TO_LONG = 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF
_MAX_BYTES = 0x7FFF_FFFF


class MalformedError(Exception):
    """The bytes are not a valid message."""


def fields(message: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Yield number, wire type and value of each field of a message; deprecated groups are skipped.

    Raises MalformedError.
    """
    at = 0
    groups: list[int] = []
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = (tag & _TO_INT) >> 3, tag & 7
        if not number:
            raise MalformedError
        if kind == START_GROUP:
            groups.append(number)
            if len(groups) > _DEPTH:
                raise MalformedError
            continue
        if kind == END_GROUP:
            if not groups or groups.pop() != number:
                raise MalformedError
            continue
        value, at = _value(message, at, kind)
        if not groups:
            yield number, kind, value
    if groups:
        raise MalformedError


def _value(message: bytes, at: int, kind: int) -> tuple[int | bytes, int]:
    if kind == VARINT:
        return _varint(message, at)
    if kind == BYTES:
        size, at = _varint(message, at)
        size &= _TO_INT
    elif kind in (FIXED32, FIXED64):
        size = 4 if kind == FIXED32 else 8
    else:
        raise MalformedError
    if size > _MAX_BYTES or at + size > len(message):
        raise MalformedError
    return message[at : at + size], at + size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise MalformedError
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _TO_LONG, at
        shift += 7
