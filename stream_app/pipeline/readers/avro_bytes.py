"""Avro's binary form: primitive values off a record's bytes, each length checked before it is believed."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from stream_app.pipeline.values.violation import ViolationError

_float, _double = struct.Struct("<f"), struct.Struct("<d")
# Items of arrays and maps that a record may have beyond one for each of its bytes: some items take no bytes.
SPARE_ITEMS = 10_000
MAX_DEPTH = 64


class Cursor:
    """A place in a record's bytes, and how much more the record may hold."""

    __slots__ = ("arrived", "at", "data", "depth", "items")

    def __init__(self, data: bytes, arrived: int | None) -> None:
        self.data, self.arrived, self.at = data, arrived, 0
        self.items, self.depth = len(data) + SPARE_ITEMS, 0

    def long(self) -> int:
        """An `int` or `long`: at most 10 bytes."""
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
            raise ViolationError("a number of 64 bits", "one that is larger")
        return (value >> 1) ^ -(value & 1)

    def null(self) -> None:
        """No bytes."""

    def boolean(self) -> bool:
        """One byte, 0 or 1."""
        byte = self.fixed(1)[0]
        if byte > 1:
            raise ViolationError("a boolean", "a byte that is neither 0 nor 1")
        return byte == 1

    def single(self) -> float:
        """Four bytes."""
        value: float = _float.unpack(self.fixed(4))[0]
        return value

    def double(self) -> float:
        """Eight bytes."""
        value: float = _double.unpack(self.fixed(8))[0]
        return value

    def fixed(self, size: int) -> bytes:
        """So many bytes."""
        start, stop = self.at, self.at + size
        if stop > len(self.data):
            raise ViolationError(f"{size} bytes", f"the end of the record after {len(self.data) - start}")
        self.at = stop
        return self.data[start:stop]

    def sized(self) -> bytes:
        """A length, and so many bytes."""
        size = self.long()
        if size < 0:
            raise ViolationError("a length", "a negative number")
        return self.fixed(size)

    def string(self) -> str:
        """The same as text."""
        data = self.sized()
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise ViolationError(
                "text in UTF-8", f"a byte that is not, at position {error.start} of it"
            ) from None

    def index(self, count: int, what: str) -> int:
        """The number of one of so many branches or symbols."""
        at = self.long()
        if not 0 <= at < count:
            raise ViolationError(what, f"number {at} of {count}")
        return at

    def blocks(self) -> Iterator[int]:
        """The numbers of the items of an array or map; the caller reads each before it asks for the next.

        Their count is bounded by the record's bytes, as items may take none.
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
        """Begin a value that contains others; `leave` it."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ViolationError(f"at most {MAX_DEPTH} nested levels", "more")

    def leave(self) -> None:
        """End it."""
        self.depth -= 1
