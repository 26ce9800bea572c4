"""Limits for every fuzzer input: CPU time and memory growth."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 1.0
"""Maximum CPU seconds per input."""
GROWTH_MB = 200.0
"""Maximum memory growth of a fuzzer process after its first inputs."""
slowest = 0.0
"""CPU seconds of the slowest input so far in this process."""


@contextmanager
def bounded(data: object, inputs: int = 1) -> Iterator[None]:
    """Raise AssertionError, with `data`, if the block uses more than `SECONDS` of CPU time per input."""
    global slowest
    begun = time.thread_time()
    yield
    seconds = (time.thread_time() - begun) / inputs
    slowest = max(slowest, seconds)
    assert seconds <= SECONDS, f"{seconds:.1f} s for {str(data)[:2000]}"


def resident_mb() -> float:
    """Return the resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6
