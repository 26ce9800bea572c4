"""Restarts the daemon: the crash of one child process ends it (exit code 1), and KCL does not restart itself."""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from stream_app.daemon.log import Line
from stream_app.errors import CONFIG_ERROR


class Ending(NamedTuple):
    """How a daemon ended.

    `code` is its exit code (negative for a signal), `child` the exit code of a failed child process. `stopped` is
    whether a stop was requested, `forced` whether it was killed before all shards had their last chance to
    checkpoint, `recovering` whether all failed shards get further at the next start (`crash_report`).
    """

    code: int
    stopped: bool = False
    child: int | None = None
    forced: bool = False
    recovering: bool = False


@dataclass(frozen=True, slots=True)
class Restarts:
    """The restart policy: at most `limit` restarts within `window_seconds`, with exponential backoff and jitter.

    Restarts after which all failed shards get further do not count, up to `recovering_limit` within the same window:
    a record that ends its process takes two restarts until it is quarantined. The n-th counted restart within the
    window waits between half and all of min(`cap_seconds`, `base_seconds` · 2^(n-1)).
    """

    limit: int = 5
    window_seconds: float = 600.0
    base_seconds: float = 1.0
    cap_seconds: float = 30.0
    recovering_limit: int = 50

    def delay(self, recent: int, chance: float) -> float:
        """Return the seconds before the next start after `recent` restarts; `chance` in [0, 1) is the jitter."""
        most = min(self.cap_seconds, self.base_seconds * 2.0 ** min(recent, 30))
        return most * (0.5 + chance / 2)


DEFAULT_RESTARTS = Restarts()


class Stop:
    """A stop request that can be made in a signal handler or another thread and awaited by a selector.

    The first request is for a graceful stop, the second one for an immediate end.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._count = 0

    @property
    def requests(self) -> int:
        """The number of requests."""
        return self._count

    def request(self) -> None:
        """Request a stop; safe in a signal handler."""
        self._count += 1
        with suppress(BlockingIOError):  # a full pipe wakes the reader as well
            os.write(self._write, b"s")

    def fileno(self) -> int:
        """Return a descriptor that is readable while there are requests not yet acknowledged."""
        return self._read

    def acknowledge(self) -> int:
        """Empty the pipe and return the number of requests."""
        while select.select([self._read], [], [], 0)[0]:
            os.read(self._read, 16)
        return self._count

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` for a request, and return whether there is one."""
        if not self._count:
            select.select([self._read], [], [], seconds)
        return self._count > 0

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._read)
        os.close(self._write)


def supervise(
    run: Callable[[], Ending],
    policy: Restarts,
    *,
    stop: Stop,
    log: Callable[[Line], None],
    chance: Callable[[], float],
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Run daemons one after the other until no restart is due, and return the exit code of the launcher.

    The exit code is 0 after a requested stop, 2 if a child process found the configuration invalid, and 1 if restarts
    are exhausted or a stop had to be forced. `run` runs one daemon to its end; `chance` returns the jitter in [0, 1).
    """
    restarts: deque[float] = deque()
    recoveries: deque[float] = deque()
    while True:
        ending = run()
        final = _final(ending)
        if final is not None:
            return final
        now = clock()
        for earlier in (restarts, recoveries):
            while earlier and now - earlier[0] > policy.window_seconds:
                earlier.popleft()
        recovering = ending.recovering and len(recoveries) < policy.recovering_limit
        if not recovering and len(restarts) >= policy.limit:
            log({"level": "ERROR", "event": "daemon_gave_up", "code": ending.code, "restarts": len(restarts)})
            return 1
        seconds = policy.delay(len(restarts), chance())
        (recoveries if recovering else restarts).append(now)
        log(
            {
                "level": "WARN",
                "event": "daemon_restarting",
                "code": ending.code,
                "in_seconds": round(seconds, 3),
                "counts": not recovering,
            }
        )
        if stop.wait(seconds):
            return 0


def _final(ending: Ending) -> int | None:
    """Return the exit code of the launcher, None if the daemon is to be restarted."""
    if ending.stopped:
        return 1 if ending.forced else 0
    if ending.child == CONFIG_ERROR:
        return CONFIG_ERROR
    return 0 if ending.code == 0 else None
