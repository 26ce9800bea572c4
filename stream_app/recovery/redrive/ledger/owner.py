"""Names of appliers, which reveal that an applier on the same machine has died before its claims expire.

On Linux a process is identified by boot id, PID namespace, PID and start time in ticks, a combination that is never
reused. On other systems no process is known to be dead, and claims end when they expire.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

_BOOT, _NAMESPACE = Path("/proc/sys/kernel/random/boot_id"), "/proc/self/ns/pid"
_UNKNOWN = "-"
_ENDED = frozenset("ZX")  # zombie, dead
_STATE, _STARTED = 0, 19  # fields of /proc/PID/stat after the command's name


def new_owner() -> str:
    """Return a unique name for an applier in this process."""
    pid = os.getpid()
    return f"{_here()}/{pid}/{_started(pid) or _UNKNOWN}/{uuid.uuid4().hex}"


def is_dead(owner: str) -> bool:
    """Return whether the applier's process has certainly ended; False if that is unknown."""
    here, _, rest = owner.partition("/")
    number, _, rest = rest.partition("/")
    started = rest.partition("/")[0]
    if here in ("", _UNKNOWN) or here != _here() or not number.isdigit() or started == _UNKNOWN:
        return False
    try:
        os.kill(int(number), 0)  # signal 0 only checks whether the process exists
    except ProcessLookupError:
        return True
    except OSError:
        return False  # a process of another user
    found = _started(int(number))
    return found is not None and found != started


def _here() -> str:
    try:
        return f"{_BOOT.read_text().strip()}+{Path(_NAMESPACE).readlink()}"
    except OSError:
        return _UNKNOWN


def _started(pid: int) -> str | None:
    """Return the tick at which a process started, `ended` if it has ended, None if that cannot be read."""
    try:
        # The command's name may contain spaces and parentheses, so parse after its end.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "ended" if fields[_STATE] in _ENDED else fields[_STARTED]
