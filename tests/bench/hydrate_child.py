"""The process that the benchmark of hydrate measures: the Lambda's own entry, fed with events from a file.

`python -m tests.bench.hydrate_child EVENTS` reads one JSON event a line, and says on stdout how long it took and how
much memory was used over what importing it takes.
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
    """Hydrate them all."""
    after_import = psutil.Process().memory_info().rss
    cpu, started = time.process_time(), time.perf_counter()
    again = 0
    with Path(sys.argv[1]).open(encoding="utf-8") as events:
        for line in events:
            again += len(lambdas.hydrate(json.loads(line), None)["batchItemFailures"])
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    said = {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "again": again,
        "import_mb": after_import / _MB,
        "mb_over_import": max(0, peak - after_import) / _MB,
    }
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main()
