"""Executes a program that Linux kills when its parent ends.

Run as a script (`python -I -S parent_death_signal.py PARENT COMMAND...`) between the fork and the exec of the JVM. A
preexec_fn would run Python in a fork of a process with threads, which may deadlock. It imports as little as possible.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Request SIGKILL for the time when the *thread* that started this process ends; Linux only.

    SIGTERM would not do: a daemon that takes 20 s to exit would overlap with its successor, which has the same worker
    id. Exits if the parent has ended already. The request survives exec.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(1)


def main(arguments: Sequence[str]) -> None:
    """Execute `arguments[1:]` as a process that ends with its parent, whose id is `arguments[0]`."""
    die_with_parent(int(arguments[0]))
    for name in (signal.SIGPIPE, signal.SIGXFSZ):  # ignored by Python, which exec would inherit
        signal.signal(name, signal.SIG_DFL)
    os.execv(arguments[1], list(arguments[1:]))  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
