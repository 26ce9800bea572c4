"""`python -m tests.bench.heap`: tests each Java, shard count and record size; writes build/bench/java_heap.json."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from tests.bench.heap.catch_up import Case, Result, catch_up

OUT = Path("build/bench/java_heap.json")
_SHARD_BYTES = 26 << 20  # limit per shard for large records: three times KCL's prefetch buffer
_SHARD_RECORDS = 40_000  # limit per shard for small records: four batches


def main() -> None:
    """Run all cases, print a row for each and write the results. Exit code 1 if a case fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.heap")
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--sizes", type=int, nargs="+", default=[361, 10_000, 1_000_000])
    parser.add_argument("--java", nargs="+", default=["bundled"], help="JAVA_HOME directories, or bundled")
    parser.add_argument("--heap", help="value for STREAM_APP_JAVA_HEAP (default: not set)")
    parser.add_argument(
        "--held", type=float, default=4.0, help="seconds to hold the first batch of each shard"
    )
    parser.add_argument("--out", type=Path, default=OUT)
    chosen = parser.parse_args()
    results: list[Result] = []
    print(f"{'java':>36}{'heap':>12}{'shards':>8}{'bytes':>9}{'records':>9}{'read':>9}"
          f"{'s':>7}{'CPU s':>7}{'RSS MiB':>9}  result", flush=True)  # fmt: skip
    for java in chosen.java:
        for size in chosen.sizes:
            for shards in chosen.shards:
                environ = {} if java == "bundled" else {"JAVA_HOME": java}
                environ |= {"STREAM_APP_JAVA_HEAP": chosen.heap} if chosen.heap else {}
                case = Case(shards, size, min(_SHARD_RECORDS, _SHARD_BYTES // size))
                with tempfile.TemporaryDirectory(prefix="bench-heap-") as folder:
                    results.append(catch_up(case, Path(folder), environ=environ, held=chosen.held))
                _print(results[-1])
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    report = {"cpus": os.cpu_count(), "results": [result.to_json() for result in results]}
    chosen.out.write_text(json.dumps(report, indent=2))
    sys.exit(not all(result.passed for result in results))


def _print(result: Result) -> None:
    case = result.case
    end = "passed" if result.passed else "OutOfMemoryError" if result.out_of_memory else f"code {result.code}"
    print(f"{result.java[-35:]:>36}{result.heap:>12}{case.shards:8}{case.size:9}"
          f"{case.shards * case.records:9}{result.read:9}{result.seconds:7}{result.cpu_s:7}{result.rss:9}"
          f"  {end}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
