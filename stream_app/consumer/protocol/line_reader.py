"""Lines of the daemon out of its pipe; those with records without an object for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from stream_app.consumer.protocol import line_kernel as kernel
from stream_app.model.records import Payloads, Records, TextColumn

_ROOM = 1 << 16  # as much as a pipe holds
# How many times more room than needed is kept: batches differ in size.
_SPARE = 8
_LINE_BREAK = ord("\n")
_ASCII = 0x80
# No character of UTF-8 begins with a byte whose upper two bits (mask, value) are these.
_CONTINUES = (0xC0, 0x80)


class Source(Protocol):
    """Bytes as they come: a file, best one without a buffer of its own."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Wait for bytes, and read as many as are there; 0 at the end."""
        ...


class Taken(NamedTuple):
    """A line of records."""

    records: Records
    behind_ms: int


class LineReader:
    """One line after another, in memory that is used again: a line is there until the next one is asked for."""

    def __init__(self, source: Source) -> None:
        # A buffered file's own `readinto` waits until all of the room is filled.
        self._readinto: Callable[[memoryview], int | None] = getattr(source, "readinto1", source.readinto)
        self._data = bytearray(_ROOM + kernel.SLACK)
        self._begin = self._end = 0  # what was read and not yet given out
        self._last = 0

    @property
    def room(self) -> int:
        """Bytes of memory that it holds."""
        return len(self._data)

    def read(self) -> memoryview | None:
        """The next line with its line break, the last one maybe without; None at the end of input."""
        looked = self._begin
        while (found := self._data.find(b"\n", looked, self._end)) < 0:
            looked = self._grow()
            with memoryview(self._data) as room, room[self._end : len(room) - kernel.SLACK] as free:
                read = self._readinto(free)
            if not read:
                return self._line(self._end) if self._begin < self._end else None
            self._end += read
        return self._line(found + 1)

    def _line(self, end: int) -> memoryview:
        line = memoryview(self._data)[self._begin : end]
        self._begin, self._last = end, len(line)
        return line

    def _grow(self) -> int:
        """An unfinished line goes to the front, where it fills most of the room to a larger one; where it ends there.

        Room that the last line did not need by far is given back.
        """
        part = self._data[self._begin : self._end]
        size, have = len(self._data) - kernel.SLACK, len(part)
        if 4 * have > 3 * size:
            self._data = bytearray(2 * size + kernel.SLACK)
        elif size > _SPARE * max(have, self._last, _ROOM):
            self._data = bytearray(_ROOM + kernel.SLACK)
        self._data[:have] = part
        self._begin, self._end = 0, have
        return have


def taken(line: memoryview) -> Taken | None:
    """The line's records, where it is one of records as KCL's daemon writes them; `line` is one of `LineReader`."""
    if line[-1] != _LINE_BREAK:
        return None
    most = len(line) // kernel.SMALLEST + 1
    room = kernel.LineBuffers(
        np.empty(len(line) // 4 * 3 + most + kernel.SLACK, np.uint8),
        np.empty(most + 1, np.int64),
        np.empty(len(line) + kernel.SLACK, np.uint8),
        np.empty(most + 1, np.int32),
        np.empty(len(line) + kernel.SLACK, np.uint8),
        np.empty(most + 1, np.int32),
        np.empty(most, np.int64),
        np.empty(most, np.int64),
    )
    data = np.frombuffer(line, np.uint8)
    count, behind_ms = kernel.records(
        data, len(line) - 1, kernel.HEAD, kernel.TAIL, kernel.MEMBERS, kernel.LENGTHS, room
    )
    if count == kernel.OTHERWISE:
        return None
    keys = _texts(room.keys, room.key_begins, count)
    sequences = _texts(room.sequences, room.sequence_begins, count)
    if keys is None or sequences is None:
        return None
    payloads = Payloads(room.payloads, room.payload_begins[: count + 1])
    # Copies: a segment keeps them, and should not keep the room that others would have had.
    arrived, subs = room.arrived[:count].copy(), room.subs[:count].copy()
    return Taken(Records(payloads, keys, sequences, arrived, subs), behind_ms)


def _texts(data: NDArray[np.uint8], begins: NDArray[np.int32], count: int) -> TextColumn | None:
    """Copies of the first texts; None where they are not UTF-8, which is for a JSON library to say."""
    texts = TextColumn(data[: begins[count]].copy(), begins[: count + 1].copy())
    if (texts.data < _ASCII).all():
        return texts
    try:
        str(texts.data.data, "utf-8")
    except UnicodeDecodeError:
        return None
    first = texts.data[texts.begins[:-1][np.diff(texts.begins) > 0]]
    return None if ((first & _CONTINUES[0]) == _CONTINUES[1]).any() else texts
