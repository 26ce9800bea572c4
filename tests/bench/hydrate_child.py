"""Child process of the hydrate benchmark: calls the Lambda handler with events from a file.

`python -m tests.bench.hydrate_child EVENTS` reads one JSON event per line and prints the elapsed time and the memory
used beyond the memory of the imports, as JSON, to stdout.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import psutil

from stream_app import lambdas

_MB = 1_048_576


def main() -> None:
    """Hydrate all events and print the measurements."""
    after_import = psutil.Process().memory_info().rss
    cpu, started = time.process_time(), time.perf_counter()
    again = 0
    with Path(sys.argv[1]).open(encoding="utf-8") as events:
        for line in events:
            again += len(lambdas.hydrate(json.loads(line), None)["batchItemFailures"])
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    measured = {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "again": again,
        "import_mb": after_import / _MB,
        "mb_over_import": max(0, peak - after_import) / _MB,
    }
    sys.stdout.write(json.dumps(measured))


if __name__ == "__main__":
    main()
