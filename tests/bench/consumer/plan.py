"""The standard benchmark run and the full grid of cases."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from tests.bench.consumer import linear, measure, memory, paced, parallel, report
from tests.bench.consumer.data import Case
from tests.bench.consumer.measure import Found
from tests.bench.consumer.ways import CANNOT, FLOOR, OURS, STOCK, Way, others

OUT = Path("build/bench/consumer.json")
HEADLINE = Case()
_POINT = replace(HEADLINE, records=60_000, warm=15_000)
_SLOW = 10_000
# river's model takes 1.25 MB and 17 ms to create per device, too much for ten thousand devices.
_STOCK_DEVICES = 1_000

# `to_json` reports the alphabetically last mode: `host`, if the checkout has a forkserver.
_COUNTS = {"alone": parallel.COUNTS_ALONE, "host": parallel.COUNTS}


def points() -> list[Case]:
    """Return cases that differ from the headline in one dimension each."""
    return [
        *(replace(_POINT, payload=size) for size in (200, 1_000)),
        replace(_POINT, payload=10_000, records=15_000, warm=15_000),
        *(replace(_POINT, devices=count) for count in (10, 10_000)),
        replace(_POINT, devices=100_000, records=200_000, warm=100_000),
        *(replace(_POINT, bad=share) for share in (0.01, 1.0)),
        *(replace(_POINT, batch=size) for size in (10, 10_000)),
        *(replace(_POINT, detector=name) for name in ("none", "trees")),
    ]


def whole_grid() -> list[Case]:
    """Return every combination of the dimensions; measuring them takes about an hour."""
    return [
        replace(
            _POINT,
            payload=payload,
            devices=devices,
            bad=bad,
            batch=batch,
            detector=detector,
            records=min(60_000, 200_000_000 // payload),
        )
        for payload, devices, bad, batch, detector in product(
            (200, 361, 1_000, 10_000), (10, 10_000), (0.0, 0.01, 1.0), (10, 500, 10_000), ("none", "default")
        )
    ]


@dataclass(frozen=True, slots=True)
class Results:
    """All results of a run."""

    counts: dict[str, int]
    headline: Found
    profile: dict[str, Any]
    grid: Sequence[Found]
    shards: Mapping[str, Sequence[parallel.Parallel]]
    tips: Sequence[paced.Paced]
    memory: Mapping[str, memory.Memory]
    devices: linear.Found

    def to_json(self) -> dict[str, Any]:
        """Return the content of build/bench/consumer.json: the four key figures, then all details."""
        return {
            "ratio_to_stock": self.headline.ratio(STOCK),
            "ratio_to_floor": self.headline.ratio(FLOOR),
            "records_per_s": self.headline.best(OURS),
            "mb_per_extra_shard": self.memory[max(self.memory)].mb_per_extra_shard,
            "ratio_to_stock_wall": self.headline.ratio(STOCK, wall=True),
            "ratio_to_floor_wall": self.headline.ratio(FLOOR, wall=True),
            "records_per_s_wall": self.headline.best(OURS, wall=True),
            "same_outputs": self.counts,
            "headline": self.headline.to_json(),
            "profile": self.profile,
            "grid": [found.to_json() for found in self.grid],
            "shards": {how: list(map(asdict, found)) for how, found in self.shards.items()},
            "shards_at_the_tip": list(map(asdict, self.tips)),
            "memory": {how: found.to_json() for how, found in self.memory.items()},
            "devices": self.devices.to_json(),
            "not_comparable": CANNOT,
        }


def standard(folder: Path, rounds: int = 3, tree: Path | None = None, *, full: bool = False) -> Results:
    """Compare outputs, then measure everything. Raises AssertionError if outputs differ."""
    more, missing = others()
    if missing:
        print(f"not installed, skipped: {', '.join(missing)} (pip install '.[bench]')")
    counts = measure.check([STOCK, *more], tree)
    print(f"identical outputs in {2 + len(more)} variants: {counts}")
    headline = measure.paired((OURS, STOCK, *more, FLOOR), HEADLINE, rounds, tree)
    profile = measure.profile(HEADLINE, tree)
    report.show(report.comparison(headline), report.stages(profile))
    grid = [
        measure.paired(_ways(case), case, 1, tree, _SLOW) for case in (whole_grid() if full else points())
    ]
    report.show(report.grid(grid, (STOCK, FLOOR)))
    devices = linear.measure(tree=tree)
    report.show(report.devices(devices))
    shards, used = {}, {}
    for how, count in _COUNTS.items():
        with suppress(LookupError):
            shards[how] = parallel.measure(count, tree, host=how == "host")
            used[how] = memory.measure(folder, tree=tree, host=how == "host")
            report.show(report.shards(shards[how], how), report.memory(used[how], how))
    tips: list[paced.Paced] = []
    with suppress(LookupError):
        tips = paced.measure(tree=tree)
        report.show(report.tips(tips))
    results = Results(counts, headline, profile, grid, shards, tips, used, devices)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(results.to_json(), indent=2))
    return results


def _ways(case: Case) -> tuple[Way, ...]:
    few = case.devices <= _STOCK_DEVICES
    return (OURS, STOCK, FLOOR) if few and case.detector == "default" else (OURS, FLOOR)
