"""`python -m tests.bench.consumer`: the headline, ours against the stock way and the floor."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median

from tests.bench.consumer import data, ways
from tests.bench.consumer.wire import Timing, play


def measure(
    way: ways.Way, lines: data.Lines, case: data.Case, tree: Path | None, limit: int | None
) -> Timing:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        child = ways.start(way, case, Path(folder), tree)
        return play(child, lines, 4 if way.stateless else 1, limit=limit)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tree", type=Path, help="take stream_app and anomaly from this checkout")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--devices", type=int, default=100)
    chosen = parser.parse_args()
    case = data.Case(records=chosen.records, devices=chosen.devices)
    lines = data.lines(case)
    found: dict[ways.Way, list[Timing]] = {ways.OURS: [], ways.STOCK: [], ways.FLOOR: []}
    for _ in range(chosen.rounds):
        for way, timings in found.items():
            limit = 60 if way is ways.STOCK else None
            timing = measure(way, lines, case, chosen.tree, limit)
            timings.append(timing)
            print(f"{way.name:36} {timing.per_cpu_second:12,.0f}/cpu s {timing.per_second:12,.0f}/s")
    ours, stock, floor = ([t.per_cpu_second for t in timings] for timings in found.values())
    print("ratio to stock", median(a / b for a, b in zip(ours, stock, strict=True)))
    print("ratio to floor", median(a / b for a, b in zip(ours, floor, strict=True)))


main()
