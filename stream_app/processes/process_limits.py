"""Limits of CPU time and wall-clock time for another process, and waiting for it."""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

_POLL_SECONDS = 0.01  # polling interval if the kernel has no pidfd
_SHORTEST = 0.02  # shortest wait for a process close to its limit
_UTIME, _STIME = 11, 12  # in /proc/<pid>/stat, after the name


class Limit(NamedTuple):
    """The limits of a fork without a report: `busy` seconds of CPU time, `waiting` seconds of wall-clock time.

    A fork on a busy machine uses little CPU time, so the wall-clock limit is the longer one. Without /proc, only the
    wall-clock limit applies.
    """

    busy: float
    waiting: float


class Watch:
    """Measures the time since the last report of a process against a limit."""

    def __init__(self, pid: int, limit: Limit) -> None:
        self._pid, self._limit = pid, limit
        self._started, self._used = time.monotonic(), _processor_seconds(pid)

    def left(self) -> float:
        """Return the seconds to wait before the next check; 0 if the limit is exceeded."""
        return 0.0 if self.exceeded else max(_SHORTEST, min(self._busy(), self._waiting()))

    @property
    def exceeded(self) -> str:
        """The exceeded limit, "busy" or "waiting", otherwise an empty string."""
        if self._waiting() <= 0:
            return "waiting"
        return "busy" if self._busy() <= 0 else ""

    def _waiting(self) -> float:
        return self._limit.waiting - (time.monotonic() - self._started)

    def _busy(self) -> float:
        return self._limit.busy - (_processor_seconds(self._pid) - self._used)


def _processor_seconds(pid: int) -> float:
    """Return the CPU time of a process in seconds, 0 if it cannot be read."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[_UTIME]) + int(fields[_STIME])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0


class Waiter:
    """Waits for a report or for the end of a process."""

    def __init__(self, pid: int) -> None:
        self._descriptor: int | None = None
        with suppress(OSError, AttributeError):
            self._descriptor = os.pidfd_open(pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def wait(self, reports: int | None, seconds: float) -> None:
        """Return when a report is readable or the process has ended, at the latest after `seconds`."""
        poll = select.poll()
        for descriptor in (reports, self._descriptor):
            if descriptor is not None:
                poll.register(descriptor, select.POLLIN)
        longest = seconds if self._descriptor is not None else min(seconds, _POLL_SECONDS)
        poll.poll(max(0.0, longest) * 1_000)
