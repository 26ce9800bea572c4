"""The time limit of a batch in this process: the kernel ends the process, even while a C loop holds the GIL."""

from __future__ import annotations

import signal
import threading

from stream_app.consumer.quarantine.policy import LONGER

_SIGNALS = {signal.SIGPROF, signal.SIGALRM}


class BatchTimer:
    """A context manager around a batch. One that exceeds the limit ends the process by SIGPROF or SIGALRM.

    The limit is `seconds` of processor time and `LONGER` times as many on the clock; 0 is no limit. Until a first
    batch was processed, unless batches were rehearsed (`warm`), the longer one holds for processor time as well: a
    user's function may import or compile. For a process of its own, whose timers are taken.
    """

    def __init__(self, seconds: float, *, warm: bool) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        self._busy, self._waiting = seconds, LONGER * seconds
        self._next = self._busy if warm else self._waiting

    def __enter__(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, self._next)
        signal.setitimer(signal.ITIMER_REAL, self._waiting)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._next = self._busy
