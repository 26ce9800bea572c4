"""Control over the process's standard output, which in a consumer carries the KCL protocol."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path

_lock = threading.Lock()  # otherwise a second thread would save the first one's replacement as the original


@contextmanager
def discarded() -> Iterator[None]:
    """Discard what the process writes to standard output in this block: Python, C and child processes."""
    with _lock:
        yield from _discarded()


def _discarded() -> Iterator[None]:
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # standard output is closed
        yield
        return
    try:
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            os.dup2(nowhere.fileno(), 1)
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
