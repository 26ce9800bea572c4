"""Become another program that does not outlive the one that started it.

Run as a script (`python -I -S parent_death_signal.py PARENT COMMAND...`) between fork and exec of the JVM: a
preexec_fn would run Python between fork and exec of a process that has threads, which may deadlock. It imports as
little as it can.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Ask Linux for SIGKILL when the *thread* that started this process ends; elsewhere do nothing.

    Not SIGTERM: a daemon that took 20 s to leave would meet its own successor, which has the same worker id.
    Exits when the parent is gone already. The wish survives exec.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(1)


def main(arguments: Sequence[str]) -> None:
    """Become `arguments[1:]`, tied to the process whose id is `arguments[0]`."""
    die_with_parent(int(arguments[0]))
    for name in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these two, and exec would hand that on.
        signal.signal(name, signal.SIG_DFL)
    os.execv(arguments[1], list(arguments[1:]))  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
