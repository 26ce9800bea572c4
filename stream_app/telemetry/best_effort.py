"""Log output to a file descriptor that never raises and never blocks for long; lost writes are counted."""

from __future__ import annotations

import io
import os
import select
import stat
from typing import IO

# A pipe that poll() reports as writable accepts this many bytes without blocking (PIPE_BUF on Linux).
_AT_ONCE = 4_096
_TIMEOUT_MS = 1_000


class BestEffortFile(io.RawIOBase, IO[bytes]):
    """A file for complete lines on a descriptor, whose writes always succeed for the caller.

    If the reader does not read, one write waits for it; until it reads again, later writes are lost at once. Writes
    that fail, because of a full disk, a closed pipe or a closed descriptor, are lost as well. Before the next line
    that can be written, a line with the number of lost writes is written.
    """

    def __init__(self, fd: int, timeout_ms: int = _TIMEOUT_MS) -> None:
        self._fd, self._timeout = fd, timeout_ms
        self._at_once = None if _is_regular(fd) else _AT_ONCE
        self._stuck = self._torn = False
        self.lost = 0
        """The number of writes that were lost or truncated."""
        self._reported = 0

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def isatty(self) -> bool:
        """Return whether the descriptor is a terminal."""
        return os.isatty(self._fd)

    def write(self, data: object, /) -> int:
        """Write `data` completely or count it as lost; returns the length of `data` in either case."""
        given = bytes(data)  # type: ignore[call-overload]
        if self.lost > self._reported and self._put(_lost_line(self.lost - self._reported)):
            self._reported = self.lost
        if not self._put(given):
            self.lost += 1
        return len(given)

    def _put(self, data: bytes) -> bool:
        rest = memoryview(b"\n" + data if self._torn else data)  # ends a truncated line
        size = len(rest)
        while rest:
            if not self._ready():
                break
            try:
                written = os.write(self._fd, rest[: self._at_once])
            except OSError:
                break
            rest = rest[written:]
        if len(rest) < size:  # something was written: was it truncated?
            self._torn = bool(rest)
        return not rest

    def _ready(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        ready = bool(poll.poll(0 if self._stuck else self._timeout))
        self._stuck = not ready
        return ready


def _is_regular(fd: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode)
    except OSError:
        return False


def _lost_line(count: int) -> bytes:
    return b'{"event": "log output was lost", "level": "warning", "writes": %d}\n' % count


def text(fd: int) -> io.TextIOWrapper:
    """Return a line-buffered text file on a descriptor, for `sys.stdout` or `sys.stderr`."""
    return io.TextIOWrapper(
        BestEffortFile(fd), encoding="utf-8", errors="backslashreplace", line_buffering=True
    )


def open_standard_files() -> None:
    """Open a closed stdin, stdout or stderr as /dev/null, so that another file cannot take its descriptor."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing != fd:
                os.dup2(nothing, fd)
                os.close(nothing)
