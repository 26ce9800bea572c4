"""Bounds that hold for every input of a fuzzer: processor time, and the growth of memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 1.0
"""Processor time that one input may take."""
GROWTH_MB = 200.0
"""Memory by which a fuzzer's process may grow after its first inputs."""
slowest = 0.0
"""Processor seconds of the slowest input so far in this process."""


@contextmanager
def bounded(data: object, inputs: int = 1) -> Iterator[None]:
    """Raise AssertionError, showing `data`, when the block takes over a second of processor time an input."""
    global slowest
    begun = time.thread_time()
    yield
    took = (time.thread_time() - begun) / inputs
    slowest = max(slowest, took)
    assert took <= SECONDS, f"{took:.1f} s for {str(data)[:2000]}"


def resident_mb() -> float:
    """The process's resident memory in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6
