"""Reads the daemon's lines and decodes record lines into columns, without creating one object per record."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from stream_app.consumer.protocol import line_kernel as kernel
from stream_app.model.records import Payloads, Records, TextColumn

_CAPACITY = 1 << 16  # the default capacity of a pipe
# A buffer of more than this many times the needed size is released: batches differ in size.
_SPARE = 8
_LINE_BREAK = ord("\n")
_ASCII = 0x80
# Mask and value of UTF-8 continuation bytes, with which no character begins.
_CONTINUATION = (0xC0, 0x80)


class Source(Protocol):
    """A binary stream, preferably without a buffer of its own."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Wait for bytes and read those available; return their number, 0 at the end of input."""
        ...


class RecordLine(NamedTuple):
    """The content of a record line."""

    records: Records
    behind_ms: int


class LineReader:
    """Reads lines into a buffer that is reused: a line is valid until the next call of `read`."""

    def __init__(self, source: Source) -> None:
        # `readinto` of a buffered file waits until the whole buffer is filled.
        self._readinto: Callable[[memoryview], int | None] = getattr(source, "readinto1", source.readinto)
        self._data = bytearray(_CAPACITY + kernel.SLACK)
        self._begin = self._end = 0  # bytes that were read and not yet returned
        self._last = 0

    @property
    def capacity(self) -> int:
        """The size of the buffer in bytes."""
        return len(self._data)

    def read(self) -> memoryview | None:
        """Return the next line with its line break, which the last line may lack; None at the end of input."""
        looked = self._begin
        while (found := self._data.find(b"\n", looked, self._end)) < 0:
            looked = self._grow()
            with memoryview(self._data) as view, view[self._end : len(view) - kernel.SLACK] as free:
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
        """Move an incomplete line to the front of the buffer, and return where it ends there.

        The buffer is doubled if the line fills most of it, and shrunk if recent lines needed far less.
        """
        part = self._data[self._begin : self._end]
        size, have = len(self._data) - kernel.SLACK, len(part)
        if 4 * have > 3 * size:
            self._data = bytearray(2 * size + kernel.SLACK)
        elif size > _SPARE * max(have, self._last, _CAPACITY):
            self._data = bytearray(_CAPACITY + kernel.SLACK)
        self._data[:have] = part
        self._begin, self._end = 0, have
        return have


def read_record_line(line: memoryview) -> RecordLine | None:
    """Decode a line of `LineReader` as records; None if it is not a record line in the form that KCL writes."""
    if line[-1] != _LINE_BREAK:
        return None
    most = len(line) // kernel.SMALLEST + 1
    buffers = kernel.LineBuffers(
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
        data, len(line) - 1, kernel.HEAD, kernel.TAIL, kernel.MEMBERS, kernel.LENGTHS, buffers
    )
    if count == kernel.UNSUPPORTED:
        return None
    keys = _texts(buffers.keys, buffers.key_begins, count)
    sequences = _texts(buffers.sequences, buffers.sequence_begins, count)
    if keys is None or sequences is None:
        return None
    payloads = Payloads(buffers.payloads, buffers.payload_begins[: count + 1])
    # Copies, because a segment keeps them and should not keep the larger buffers.
    arrived, subs = buffers.arrived[:count].copy(), buffers.subs[:count].copy()
    return RecordLine(Records(payloads, keys, sequences, arrived, subs), behind_ms)


def _texts(data: NDArray[np.uint8], begins: NDArray[np.int32], count: int) -> TextColumn | None:
    """Copy the first `count` texts; None if they are not UTF-8, so that the JSON decoder reports the error."""
    texts = TextColumn(data[: begins[count]].copy(), begins[: count + 1].copy())
    if (texts.data < _ASCII).all():
        return texts
    try:
        str(texts.data.data, "utf-8")
    except UnicodeDecodeError:
        return None
    first = texts.data[texts.begins[:-1][np.diff(texts.begins) > 0]]
    return None if ((first & _CONTINUATION[0]) == _CONTINUATION[1]).any() else texts
