"""The daemon's pipe, made wider for a shard with large batches: then a line is written at once, and read at once.

A pipe holds 64 KB. A longer line wakes its reader for each piece of it, and on a machine with many shards others run
in between, for whom the processor's caches are emptied.
"""

from __future__ import annotations

import fcntl
from contextlib import suppress
from io import FileIO

_USUAL = 1 << 16
# A line of 500 records has some 275 KB. Linux counts what all pipes of a user hold, 64 MB unless root's: it is enough
# for a hundred such shards, and a shard whose lines are short leaves its pipe as it is.
_WIDE = 1 << 19
_SET_SIZE = getattr(fcntl, "F_SETPIPE_SZ", None)  # Linux


class WidePipe:
    """Bytes of a file (protocol `lines.Source`). Found full, a pipe is made wider, where that is allowed."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._wide = _SET_SIZE is None

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Wait for bytes, and read as many as are there; 0 at the end."""
        read = self._file.readinto(buffer)
        if not self._wide and read is not None and read >= _USUAL:
            self._widen()
        return read

    def _widen(self) -> None:
        self._wide = True  # asked once: what was refused will be again
        with suppress(OSError):  # no pipe, or more than this user may have
            fcntl.fcntl(self._file, _SET_SIZE or 0, _WIDE)
