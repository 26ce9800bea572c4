"""Keeps a daemon running: one child's crash ends it (exit code 1), and nothing but this starts it again."""

from __future__ import annotations

import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import NamedTuple

from stream_app.daemon.log import Line
from stream_app.errors import CONFIG_ERROR

__all__ = ["USUAL", "Ending", "Restarts", "Stop", "stop_on_signals", "supervise"]


class Ending(NamedTuple):
    """How a daemon ended: its exit code (negative: the signal), and the code with which a child had failed.

    `stopped` tells whether it was asked to end, `forced` whether it had to be killed before all of its shards had
    their last chance to checkpoint, `recovering` whether every shard that failed gets further at the next start
    (`crash_report`).
    """

    code: int
    stopped: bool = False
    child: int | None = None
    forced: bool = False
    recovering: bool = False


@dataclass(frozen=True, slots=True)
class Restarts:
    """How often to try again: at most `limit` times within `window_seconds`, then give up.

    Restarts after which the shards that failed get further do not count, up to `recovering_limit` of them within the
    same window: a record that ends its process costs two of them before it is quarantined. The n-th restart that
    counts within the window waits between half and all of `base_seconds` times 2^(n-1), which
    `cap_seconds` bounds.
    """

    limit: int = 5
    window_seconds: float = 600.0
    base_seconds: float = 1.0
    cap_seconds: float = 30.0
    recovering_limit: int = 50

    def delay(self, recent: int, chance: float) -> float:
        """Seconds before the next start after `recent` restarts; `chance` in [0, 1) is the jitter."""
        most = min(self.cap_seconds, self.base_seconds * 2.0 ** min(recent, 30))
        return most * (0.5 + chance / 2)


USUAL = Restarts()


class Stop:
    """A wish to stop that a signal handler or another thread may utter and a selector can wait for.

    The first wish is for a graceful stop, a second one for an immediate end.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._count = 0

    @property
    def wishes(self) -> int:
        """How often it was asked for."""
        return self._count

    def request(self) -> None:
        """Ask. Safe in a signal handler."""
        self._count += 1
        with suppress(BlockingIOError):  # a full pipe wakes the reader as well
            os.write(self._write, b"s")

    def fileno(self) -> int:
        """What a selector waits on: readable while there are wishes that `acknowledge` has not taken."""
        return self._read

    def acknowledge(self) -> int:
        """Take the wishes uttered so far out of the pipe; how often it was asked for."""
        while select.select([self._read], [], [], 0)[0]:
            os.read(self._read, 16)
        return self._count

    def wait(self, seconds: float) -> bool:
        """Wait until asked, at most `seconds`; whether it was asked."""
        if not self._count:
            select.select([self._read], [], [], seconds)
        return self._count > 0

    def close(self) -> None:
        """Give the pipe back."""
        os.close(self._read)
        os.close(self._write)


@contextmanager
def stop_on_signals(stop: Stop) -> Iterator[None]:
    """SIGTERM and SIGINT ask `stop`, instead of ending this process. For the main thread alone."""

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.request()

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def supervise(
    run: Callable[[], Ending],
    policy: Restarts,
    *,
    stop: Stop,
    tell: Callable[[Line], None],
    chance: Callable[[], float],
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Run daemons one after the other until one ends for good; the exit code of the launcher.

    0 after a requested stop, 2 when a child said that the configuration is wrong, 1 when restarts are spent or a
    stop had to be forced. `run` runs one daemon to its end; `chance` gives the jitter, in [0, 1).
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
            tell(
                {"level": "ERROR", "event": "daemon_gave_up", "code": ending.code, "restarts": len(restarts)}
            )
            return 1
        seconds = policy.delay(len(restarts), chance())
        (recoveries if recovering else restarts).append(now)
        tell(
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
    """The launcher's exit code, or None where the daemon is worth another start."""
    if ending.stopped:
        return 1 if ending.forced else 0
    if ending.child == CONFIG_ERROR:
        return CONFIG_ERROR
    return 0 if ending.code == 0 else None
