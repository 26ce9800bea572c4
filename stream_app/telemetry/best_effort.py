"""Log output to a file descriptor, without ever raising or waiting for long: what cannot be written is counted."""

from __future__ import annotations

import io
import os
import select
import stat
from typing import IO

# A pipe that poll() calls writable takes this many bytes without waiting (PIPE_BUF on Linux).
_AT_ONCE = 4_096
_PATIENCE_MS = 1_000


class BestEffortFile(io.RawIOBase, IO[bytes]):
    """A descriptor as a file for whole lines. A write always succeeds, for its caller.

    A reader that does not read is waited for once; until it reads again, what is written is lost at once. So is what
    a full disk, a closed pipe or a closed descriptor refuses. When a line can be written again, another before it
    tells how many writes were lost.
    """

    def __init__(self, fd: int, patience_ms: int = _PATIENCE_MS) -> None:
        self._fd, self._patience = fd, patience_ms
        self._at_once = None if _is_regular(fd) else _AT_ONCE
        self._stuck = self._torn = False
        self.lost = 0
        """How many writes were lost, or cut short."""
        self._told = 0

    def writable(self) -> bool:
        """Always."""
        return True

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def isatty(self) -> bool:
        """Whether a person reads it."""
        return os.isatty(self._fd)

    def write(self, data: object, /) -> int:
        """Write all of it, or count it as lost; the length of `data` in either case."""
        given = bytes(data)  # type: ignore[call-overload]
        if self.lost > self._told and self._put(_lost_line(self.lost - self._told)):
            self._told = self.lost
        if not self._put(given):
            self.lost += 1
        return len(given)

    def _put(self, data: bytes) -> bool:
        rest = memoryview(b"\n" + data if self._torn else data)  # ends what was cut short before
        size = len(rest)
        while rest:
            if not self._ready():
                break
            try:
                written = os.write(self._fd, rest[: self._at_once])
            except OSError:
                break
            rest = rest[written:]
        if len(rest) < size:  # something was written: does it end within a line?
            self._torn = bool(rest)
        return not rest

    def _ready(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        ready = bool(poll.poll(0 if self._stuck else self._patience))
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
    """A descriptor as a text file for `sys.stdout` or `sys.stderr`; it writes line by line."""
    return io.TextIOWrapper(
        BestEffortFile(fd), encoding="utf-8", errors="backslashreplace", line_buffering=True
    )


def open_standard_files() -> None:
    """Have a closed stdin, stdout or stderr be /dev/null, lest the next file that is opened take its place."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing != fd:
                os.dup2(nothing, fd)
                os.close(nothing)
