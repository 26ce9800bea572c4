"""Enlarges the daemon's pipe for a shard with large batches, so that a line is written and read in one piece.

A pipe holds 64 KB. A longer line wakes its reader for each piece, and on a machine with many shards other processes
run in between and evict the caches.
"""

from __future__ import annotations

import fcntl
from contextlib import suppress
from io import FileIO

_DEFAULT_CAPACITY = 1 << 16
# A line of 500 records has about 275 KB. Linux limits the pipes of an unprivileged user to 64 MB in all, enough for a
# hundred such shards; the pipe of a shard with short lines keeps its size.
_ENLARGED = 1 << 19
_SET_SIZE = getattr(fcntl, "F_SETPIPE_SZ", None)  # Linux


class WidePipe:
    """Reads a pipe (protocol `line_reader.Source`), and enlarges it, if permitted, once it is found full."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._wide = _SET_SIZE is None

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Wait for bytes and read those available; return their number, 0 at the end of input."""
        read = self._file.readinto(buffer)
        if not self._wide and read is not None and read >= _DEFAULT_CAPACITY:
            self._widen()
        return read

    def _widen(self) -> None:
        self._wide = True  # once only: a second attempt would fail too
        with suppress(OSError):  # not a pipe, or beyond the user's limit
            fcntl.fcntl(self._file, _SET_SIZE or 0, _ENLARGED)
