"""The time limit of a batch, enforced by the kernel: it ends the process even while C code holds the GIL."""

from __future__ import annotations

import signal
import threading

from stream_app.consumer.quarantine.policy import WALL_CLOCK_FACTOR

_SIGNALS = {signal.SIGPROF, signal.SIGALRM}


class BatchTimer:
    """Context manager of a batch: if it exceeds the limit, SIGPROF or SIGALRM ends the process.

    The limit is `seconds` of processor time and `WALL_CLOCK_FACTOR` times as many of wall-clock time; 0 means no
    limit. The first batch, unless the process is `warm`, has the longer limit for processor time too, because a
    user's function may import or compile. It uses the timers of the process and therefore needs a process of its own.
    """

    def __init__(self, seconds: float, *, warm: bool) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        self._processor_seconds, self._wall_seconds = seconds, WALL_CLOCK_FACTOR * seconds
        self._next = self._processor_seconds if warm else self._wall_seconds

    def __enter__(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, self._next)
        signal.setitimer(signal.ITIMER_REAL, self._wall_seconds)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._next = self._processor_seconds
