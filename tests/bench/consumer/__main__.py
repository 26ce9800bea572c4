"""`python -m tests.bench.consumer`: the headline and its profile; `--grid` for the rest."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.bench.consumer import measure, report
from tests.bench.consumer.data import Case
from tests.bench.consumer.ways import FLOOR, OURS, STOCK, others


def main() -> None:
    """Check, time, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.consumer")
    parser.add_argument("--tree", type=Path, help="take stream_app and anomaly from this checkout")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-check", action="store_true", help="do not compare outputs first")
    parser.add_argument("--ours", action="store_true", help="only ours and the floor")
    for field, kind in (("records", int), ("devices", int), ("payload", int), ("batch", int), ("bad", float)):
        parser.add_argument(f"--{field}", type=kind, default=getattr(Case(), field))
    parser.add_argument("--detector", default="default", choices=("default", "none", "trees"))
    chosen = parser.parse_args()
    more, missing = ([], []) if chosen.ours else others()
    if missing:
        print(f"not installed, so not compared: {', '.join(missing)} (pip install '.[bench]')")
    if not chosen.no_check:
        print("the same in all:", measure.check([STOCK, *more], chosen.tree))
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
