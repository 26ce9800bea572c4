"""A control group with little memory; the kernel kills processes that exceed it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LIMIT = 48_000_000
_ROOT = Path("/sys/fs/cgroup")


@contextmanager
def memory_group() -> Iterator[str]:
    """The folder of a group that a process may join; empty where this machine allows none."""
    folder = _create()
    yield str(folder or "")
    if folder is not None:
        with suppress(OSError):  # a process that was killed may not be gone yet
            folder.rmdir()


def _create() -> Path | None:
    for parent, limit in _parents():
        folder = parent / f"stream-app-test-{os.getpid()}"
        with suppress(OSError):
            folder.mkdir()
            (folder / limit).write_text(str(_LIMIT))
            return folder
    return None


def _parents() -> Iterator[tuple[Path, str]]:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            yield _ROOT / "memory" / path.lstrip("/"), "memory.limit_in_bytes"
        elif not controllers:
            yield _ROOT / path.lstrip("/"), "memory.max"
