"""The time limit of a batch in this process: the kernel ends the process, even while a C loop holds the GIL."""

from __future__ import annotations

import signal
import threading


class BatchTimer:
    """A context manager around a batch. One that takes longer than `seconds` (0: for ever) ends by SIGALRM.

    Until a first batch was processed, `first` seconds are allowed: a user's function may import or compile. For a
    process of its own, in its main thread: SIGALRM and the process's real-time timer are taken.
    """

    def __init__(self, seconds: float, first: float) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        self._seconds, self._next = seconds, first

    def __enter__(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._next)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._next = self._seconds
