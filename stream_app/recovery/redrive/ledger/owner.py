"""Who an applier is, so that one that died on this machine is known to be dead before its claims end.

On Linux a process is told by the boot of its kernel, its PID namespace, its PID and the tick at which it started:
no other process ever has the same. Elsewhere nobody is known to be dead, and claims end by their time.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

_BOOT, _NAMESPACE = Path("/proc/sys/kernel/random/boot_id"), "/proc/self/ns/pid"
_UNKNOWN = "-"
_ENDED = frozenset("ZX")  # killed, and not yet buried by its parent
_STATE, _STARTED = 0, 19  # fields of /proc/PID/stat after the command's name


def new_owner() -> str:
    """A name for an applier in this process."""
    pid = os.getpid()
    return f"{_here()}/{pid}/{_started(pid) or _UNKNOWN}/{uuid.uuid4().hex}"


def is_dead(owner: str) -> bool:
    """Whether that applier's process is sure to have ended; False where nobody can know."""
    here, _, rest = owner.partition("/")
    number, _, rest = rest.partition("/")
    started = rest.partition("/")[0]
    if here in ("", _UNKNOWN) or here != _here() or not number.isdigit() or started == _UNKNOWN:
        return False
    try:
        os.kill(int(number), 0)  # no signal; only asks
    except ProcessLookupError:
        return True
    except OSError:
        return False  # somebody else's process
    found = _started(int(number))
    return found is not None and found != started


def _here() -> str:
    try:
        return f"{_BOOT.read_text().strip()}+{Path(_NAMESPACE).readlink()}"
    except OSError:
        return _UNKNOWN


def _started(pid: int) -> str | None:
    """The tick at which a process started, `ended` of one that has; None where that cannot be read."""
    try:
        # The command's name may hold anything, so fields are counted from behind it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "ended" if fields[_STATE] in _ENDED else fields[_STARTED]
