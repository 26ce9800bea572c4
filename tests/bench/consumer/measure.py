"""Paired runs: the variants take turns on the same lines, so that other load affects all of them alike."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.consumer import data, outputs
from tests.bench.consumer.data import Case, Lines
from tests.bench.consumer.ways import OURS, Way, start
from tests.bench.consumer.wire import Timing, play

SLOW_RECORDS = 20_000


@dataclass(frozen=True, slots=True)
class Found:
    """The runs of each variant for one case."""

    case: Case
    timings: Mapping[Way, Sequence[Timing]]

    def best(self, way: Way, *, wall: bool = False) -> float:
        """Return records per CPU second (or per second of wall time) of the best run."""
        return max(t.per_second if wall else t.per_cpu_second for t in self.timings[way])

    def ratio(self, other: Way, *, wall: bool = False) -> float:
        """Return the median of the pairwise ratios of our rate to the other's."""
        pairs = zip(self.timings[OURS], self.timings[other], strict=True)
        if wall:
            return median(ours.per_second / theirs.per_second for ours, theirs in pairs)
        return median(ours.per_cpu_second / theirs.per_cpu_second for ours, theirs in pairs)

    def to_json(self) -> dict[str, Any]:
        """Return the values as built-in types."""
        return {
            "case": asdict(self.case),
            "runs": {way.name: [asdict(t) for t in timings] for way, timings in self.timings.items()},
        }


def run(
    way: Way,
    lines: Lines,
    case: Case,
    tree: Path | None,
    further: Mapping[str, str] | None = None,
    slow: int = SLOW_RECORDS,
) -> Timing:
    """Run one child to completion. Slow variants receive only the first `slow` records."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        child = start(way, case, Path(folder), tree, further)
        timed = max(1, slow // case.batch) if way.slow else None
        return play(child, lines, 4 if way.stateless else 1, limit=timed)


def paired(
    ways: Sequence[Way], case: Case, rounds: int, tree: Path | None = None, slow: int = SLOW_RECORDS
) -> Found:
    """Run all variants in turn, `rounds` times."""
    lines = data.lines(case)
    timings: dict[Way, list[Timing]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            timings[way].append(run(way, lines, case, tree, slow=slow))
    return Found(case, timings)


def profile(case: Case, tree: Path | None = None) -> dict[str, Any]:
    """Return the share of the child's CPU time by stage."""
    lines = data.lines(case)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        path = Path(folder) / "profile.json"
        further = {"BENCH_PROFILE": str(path), "BENCH_WARM": str(2 + len(lines.warm))}
        run(OURS, lines, case, tree, further)
        found: dict[str, Any] = json.loads(path.read_text())
        return found


# Covers every possible outcome of a record, and all fields.
CHECKED = Case(
    devices=7, payload=500, bad=0.05, repeats=0.02, weather=True, detector="trees", records=6_000, warm=2_000
)


def check(ways: Sequence[Way], tree: Path | None = None, case: Case = CHECKED) -> dict[str, int]:
    """Check that all variants give identical rows (bit by bit) and failures; return the counts by outcome.

    Uses the equivalent of river's detector (`anomaly.trees`), so that scores are compared too. Raises AssertionError.
    """
    lines = data.lines(case)
    written = {way: _output(way, lines, case, tree) for way in (OURS, *ways)}
    for way in ways:
        found = outputs.difference(written[OURS], written[way], scores=True)
        assert not found, f"{way.name} differs: {found}"
    return written[OURS].counts


def _output(way: Way, lines: Lines, case: Case, tree: Path | None) -> outputs.Output:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        play(start(way, case, Path(folder), tree), lines)
        return (outputs.of_ours if way == OURS else outputs.of_lines)(Path(folder) / "out")
