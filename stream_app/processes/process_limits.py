"""How long another process may take, by processor time and by the clock, and waiting for it."""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

_POLL_SECONDS = 0.01  # where the kernel has no pidfd
_SHORTEST = 0.02  # a wait for a process that is close to its limit
_UTIME, _STIME = 11, 12  # in /proc/<pid>/stat, after the name


class Limit(NamedTuple):
    """How long a fork may go on without a report: seconds of processor time, and seconds on the clock.

    A fork that has to wait for a busy machine uses little processor time: it is given the longer time on the clock.
    Without /proc there is only the clock.
    """

    busy: float
    waiting: float


class Watch:
    """The time since a report of a process."""

    def __init__(self, pid: int, limit: Limit) -> None:
        self._pid, self._limit = pid, limit
        self._begun, self._used = time.monotonic(), _processor_seconds(pid)

    def left(self) -> float:
        """Seconds on the clock after which to look again; 0 where the limit is exceeded."""
        return 0.0 if self.exceeded else max(_SHORTEST, min(self._busy(), self._waiting()))

    @property
    def exceeded(self) -> str:
        """Which limit is exceeded, if any."""
        if self._waiting() <= 0:
            return "waiting"
        return "busy" if self._busy() <= 0 else ""

    def _waiting(self) -> float:
        return self._limit.waiting - (time.monotonic() - self._begun)

    def _busy(self) -> float:
        return self._limit.busy - (_processor_seconds(self._pid) - self._used)


def _processor_seconds(pid: int) -> float:
    """Processor time of a process; 0 where it cannot be read."""
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
        """Return when one of both is there, or after the time."""
        poll = select.poll()
        for descriptor in (reports, self._descriptor):
            if descriptor is not None:
                poll.register(descriptor, select.POLLIN)
        longest = seconds if self._descriptor is not None else min(seconds, _POLL_SECONDS)
        poll.poll(max(0.0, longest) * 1_000)
