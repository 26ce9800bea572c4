"""Decodes the primitive values of Avro's binary encoding, and checks each length before using it."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from stream_app.pipeline.values.violation import ViolationError

_float, _double = struct.Struct("<f"), struct.Struct("<d")
SPARE_ITEMS = 10_000
"""Items of arrays and maps that a record may have beyond one for each byte: some items are encoded in no bytes."""
MAX_DEPTH = 64
"""Levels of nested arrays, maps and records that a record may have."""


class Cursor:
    """A position in a record's bytes, with the remaining limits for items and depth.

    Every method raises ViolationError for malformed or truncated bytes.
    """

    __slots__ = ("arrived", "at", "data", "depth", "items")

    def __init__(self, data: bytes, arrived: int | None) -> None:
        self.data, self.arrived, self.at = data, arrived, 0
        self.items, self.depth = len(data) + SPARE_ITEMS, 0

    def long(self) -> int:
        """Read an `int` or `long`: a zigzag varint of at most 10 bytes."""
        value = shift = 0
        try:
            while True:
                byte = self.data[self.at]
                self.at += 1
                value |= (byte & 0x7F) << shift
                if byte < 0x80:
                    break
                shift += 7
                if shift > 63:
                    raise ViolationError("a number of at most 10 bytes", "a longer one")
        except IndexError:
            raise ViolationError("a number", "the end of the record") from None
        if value >= 1 << 64:
            raise ViolationError("a number of 64 bits", "a larger one")
        return (value >> 1) ^ -(value & 1)

    def null(self) -> None:
        """Read a `null`, which has no bytes."""

    def boolean(self) -> bool:
        """Read a `boolean`: one byte, 0 or 1."""
        byte = self.fixed(1)[0]
        if byte > 1:
            raise ViolationError("a boolean", "a byte other than 0 and 1")
        return byte == 1

    def single(self) -> float:
        """Read a `float`: four bytes."""
        value: float = _float.unpack(self.fixed(4))[0]
        return value

    def double(self) -> float:
        """Read a `double`: eight bytes."""
        value: float = _double.unpack(self.fixed(8))[0]
        return value

    def fixed(self, size: int) -> bytes:
        """Read `size` bytes."""
        start, stop = self.at, self.at + size
        if stop > len(self.data):
            raise ViolationError(f"{size} bytes", f"the end of the record after {len(self.data) - start}")
        self.at = stop
        return self.data[start:stop]

    def sized(self) -> bytes:
        """Read `bytes`: a length followed by as many bytes."""
        size = self.long()
        if size < 0:
            raise ViolationError("a length", "a negative number")
        return self.fixed(size)

    def string(self) -> str:
        """Read a `string`: bytes in UTF-8."""
        data = self.sized()
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise ViolationError(
                "text in UTF-8", f"an invalid byte at position {error.start} of the value"
            ) from None

    def index(self, count: int, what: str) -> int:
        """Read the index of one of `count` branches or symbols; `what` names them in the error."""
        at = self.long()
        if not 0 <= at < count:
            raise ViolationError(what, f"number {at} of {count}")
        return at

    def blocks(self) -> Iterator[int]:
        """Yield the indexes of the items of an array or map; the caller must read each item before the next index.

        Limits the number of items in the record, because items may be encoded in no bytes.
        """
        at = 0
        while count := self.long():
            if count < 0:
                count = -count
                if self.long() < 0:
                    raise ViolationError("the length of a block", "a negative number")
            if count > self.items:
                raise ViolationError(f"at most {len(self.data) + SPARE_ITEMS} items in all", "more")
            self.items -= count
            yield from range(at, at + count)
            at += count

    def enter(self) -> None:
        """Enter a nested value; call `leave` after its last part."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ViolationError(f"at most {MAX_DEPTH} nested levels", "more")

    def leave(self) -> None:
        """Leave a nested value."""
        self.depth -= 1
