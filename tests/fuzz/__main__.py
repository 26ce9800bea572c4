"""Run one fuzzer: `python -m tests.fuzz NAME [--seed N] [--count N]`; the last line is a summary as JSON."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable

from tests.fuzz import watch

LONG_RUN = {
    "protocol_lines": 1_900_000,
    "recovery_readers": 500_000,
    "splits": 560_000,
    "state_snapshots": 50_000,
}
"""Fuzzer modules of this package, with the number of inputs for a run of several minutes."""
_CHUNK = 2_000


def fuzzer(name: str) -> Callable[[int, int], None]:
    """Return the function `fuzz(seed, count)` of a module named in `LONG_RUN`."""
    found: Callable[[int, int], None] = importlib.import_module(f"tests.fuzz.{name}").fuzz
    return found


def main(arguments: list[str]) -> int:
    """Test inputs in chunks, each with its own seed. Exit code 1 if memory grows beyond the limit."""
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    parser.add_argument("name", choices=list(LONG_RUN))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=20_000)
    given = parser.parse_args(arguments)
    fuzz, grown, started = fuzzer(given.name), 0.0, 0.0
    for done in range(0, given.count, _CHUNK):
        fuzz(given.seed + done, min(_CHUNK, given.count - done))
        resident = watch.resident_mb()
        started = started or resident  # the first chunk includes imports and compilation
        grown = max(grown, resident - started)
    summary = {
        "name": given.name,
        "seed": given.seed,
        "inputs": given.count,
        "slowest_s": round(watch.slowest, 4),
        "grown_mb": round(grown, 1),
    }
    print(json.dumps(summary))
    return int(grown > watch.GROWTH_MB)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
