"""Command line: measures the headline case and its profile, or with `--standard` everything."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.bench.consumer import linear, measure, memory, paced, parallel, plan, report
from tests.bench.consumer.data import Case
from tests.bench.consumer.ways import FLOOR, OURS, STOCK, others


def main() -> None:
    """Parse the options, run the measurements and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.consumer")
    parser.add_argument("--tree", type=Path, help="measure stream_app and anomaly from this checkout")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-check", action="store_true", help="skip the comparison of outputs")
    parser.add_argument("--ours", action="store_true", help="measure only this application and the floor")
    for field, kind in (("records", int), ("devices", int), ("payload", int), ("batch", int), ("bad", float)):
        parser.add_argument(f"--{field}", type=kind, default=getattr(Case(), field))
    parser.add_argument("--detector", default="default", choices=("default", "none", "trees"))
    parser.add_argument(
        "--standard", action="store_true", help="measure everything that `make bench` measures"
    )
    parser.add_argument(
        "--full", action="store_true", help="like --standard, with every combination of the grid"
    )
    parser.add_argument("--linear", action="store_true", help="measure only the cost by number of devices")
    parser.add_argument(
        "--memory", type=int, nargs="*", help="measure only memory, for these numbers of shards"
    )
    parser.add_argument(
        "--shards", type=int, nargs="*", help="measure only throughput, for these numbers of busy shards"
    )
    parser.add_argument(
        "--tip", type=int, nargs="*", help="measure only throughput, for these numbers of shards at the tip"
    )
    parser.add_argument("--host", action="store_true", help="with --memory or --shards: use the forkserver")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        if chosen.memory is not None:
            counts = chosen.memory or (1, 4, 8)
            report.show(report.memory(memory.measure(Path(folder), counts, chosen.tree, host=chosen.host)))
        elif chosen.linear:
            report.show(report.devices(linear.measure(chosen.rounds, chosen.tree)))
        elif chosen.shards is not None:
            report.show(report.shards(*busy_shards(chosen)))
        elif chosen.tip is not None:
            report.show(report.tips(paced.measure(chosen.tip or paced.COUNTS, chosen.tree)))
        elif chosen.standard or chosen.full:
            plan.standard(Path(folder), chosen.rounds, chosen.tree, full=chosen.full)
        else:
            one_point(chosen)


def busy_shards(chosen: argparse.Namespace) -> tuple[list[parallel.Parallel], str]:
    """Measure shards in parallel; return the results and the mode (host or alone)."""
    default = parallel.COUNTS if chosen.host else parallel.COUNTS_ALONE
    found = parallel.measure(chosen.shards or default, chosen.tree, host=chosen.host)
    return found, "host" if chosen.host else "alone"


def one_point(chosen: argparse.Namespace) -> None:
    """Measure the case selected by the options, by default the headline."""
    more, missing = ([], []) if chosen.ours else others()
    if missing:
        print(f"not installed, skipped: {', '.join(missing)} (pip install '.[bench]')")
    if not chosen.no_check:
        print("identical outputs:", measure.check([STOCK, *more], chosen.tree))
    case = Case(
        records=chosen.records,
        devices=chosen.devices,
        payload=chosen.payload,
        batch=chosen.batch,
        bad=chosen.bad,
        detector=chosen.detector,
    )
    ways = (OURS, FLOOR) if chosen.ours else (OURS, STOCK, *more, FLOOR)
    found = measure.paired(ways, case, chosen.rounds, chosen.tree)
    report.show(report.comparison(found), report.stages(measure.profile(case, chosen.tree)))


main()
