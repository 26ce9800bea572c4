"""Measures CPU microseconds per record by number of devices, including snapshots.

Every device has existing state (`grown`) and whole segments are timed. The checkpoint interval is set so high that
only small snapshots, which are taken with every segment, fall into the timed part. The cost of a full snapshot is
measured at the end of the shard and added at the application's rate: one per `checkpoint_seconds`, or fewer when a
snapshot takes long. A fully used core spends that time on snapshots and the rest on records, regardless of the
number of shards. A single shard on a core receives far fewer records in that time (1,000 per second at most), so its
cost is reported separately, as is the cost of a device's first record.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stream_app.consumer.checkpoint_schedule import SNAPSHOT_SHARE
from stream_app.settings import Settings
from tests.bench.consumer import data, grown
from tests.bench.consumer.data import Case, Lines
from tests.bench.consumer.ways import OURS, product_path, start
from tests.bench.consumer.wire import TICK, Child

COUNTS = (10, 100, 1_000, 10_000, 100_000)
INTERVAL = Settings("bench", "bench").checkpoint_seconds
FULL_SHARD = 1_000  # records per second
# A minute of a full shard is one segment of 50,000 records and one of 10,000. The last warm-up batch starts the first
# minute; the timed part ends with the large segment of the third, so that no segment is open at the end of the shard.
_CASE = Case(warm=10_000, records=169_500, lives=grown.LIVED)
# Number of records timed for new devices.
_FIRST = 80_000
_NEVER = {"STREAM_APP_CHECKPOINT_SECONDS": "86400"}


@dataclass(frozen=True, slots=True)
class Run:
    """CPU seconds for restore, for the first and for all timed records and for the end; snapshot size in MB."""

    restore: float
    first: float
    timed: float
    end: float
    mb: float


@dataclass(frozen=True, slots=True)
class Linear:
    """Best values over several runs: `stages` in µs per record, `snapshot` and `restore` in seconds."""

    devices: int
    stages: float
    snapshot: float
    restore: float
    mb: float

    @property
    def every(self) -> float:
        """Seconds between two snapshots."""
        return max(INTERVAL, self.snapshot / SNAPSHOT_SHARE)

    @property
    def record(self) -> float:
        """µs per record including snapshots, on a fully used core."""
        return self.stages * self.every / (self.every - self.snapshot)

    @property
    def alone(self) -> float:
        """µs per record including snapshots, for a single shard at its limit of records per second."""
        return self.stages + self.snapshot * 1e6 / (self.every * FULL_SHARD)

    def to_json(self) -> dict[str, Any]:
        """Return the values as built-in types."""
        return {**asdict(self), "every": self.every, "record": self.record, "alone": self.alone}


@dataclass(frozen=True, slots=True)
class Found:
    """Results by number of devices, and the cost of a device's first record (stages) in microseconds."""

    by_devices: Sequence[Linear]
    first_meeting: float

    def ratio(self, one: Linear) -> float:
        """Return its rate relative to the highest rate."""
        return min(other.record for other in self.by_devices) / one.record

    def to_json(self) -> dict[str, Any]:
        """Return the part for build/bench/consumer.json."""
        rows = [{**one.to_json(), "ratio": self.ratio(one)} for one in self.by_devices]
        return {"first_meeting_us": self.first_meeting, "by_devices": rows}


def measure(rounds: int = 2, tree: Path | None = None, counts: Sequence[int] = COUNTS) -> Found:
    """Measure all numbers of devices in turn, `rounds` times; takes 20 s plus 25 s per round."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        prepare(counts, folder, tree)
        lines = {devices: data.lines(replace(_CASE, devices=devices)) for devices in counts}
        runs: dict[int, list[Run]] = {devices: [] for devices in counts}
        new: list[Run] = []
        for _ in range(rounds):
            for devices in counts:
                runs[devices].append(run(lines[devices], devices, folder / str(devices), tree))
            new.append(run(lines[max(counts)], max(counts), None, tree))
        return found(runs, new)


def prepare(counts: Sequence[int], folder: Path, tree: Path | None) -> None:
    """Build the state for each number of devices with the measured checkout, one folder each."""
    environ = {**os.environ, "PYTHONPATH": product_path(tree)}
    command = [sys.executable, "-P", "-m", grown.__name__, str(folder), *map(str, counts)]
    subprocess.run(command, env=environ, check=True)


def run(lines: Lines, devices: int, state: Path | None, tree: Path | None) -> Run:
    """Run one child, with or without initial state, to the end of the shard."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        if state is not None:
            shutil.copytree(state, folder / "out")
        child = start(OURS, replace(_CASE, devices=devices), folder, tree, _NEVER)
        marks = _marks(child, lines, "TRIM_HORIZON" if state is None else grown.SEQUENCE)
        child.close()
        mb = max(path.stat().st_size for path in (folder / "out").glob("*SHARD_END")) / 1e6
    return Run(marks[1] - marks[0], marks[3] - marks[2], marks[4] - marks[2], marks[5] - marks[4], mb)


def _marks(child: Child, lines: Lines, checkpoint: str) -> list[float]:
    """CPU time at start, after restore, after warm-up, after the first and all records, and at shard end."""
    marks = [child.cpu()]
    child.initialize(checkpoint=checkpoint)
    first = _FIRST // _CASE.batch
    for part in ((), (*lines.warm, TICK), lines.timed[:first], (*lines.timed[first:], TICK)):
        for line in part:
            child.send(line)
        marks.append(child.cpu())
    child.act("shardEnded")
    return [*marks, child.cpu()]


def found(runs: Mapping[int, Sequence[Run]], new: Sequence[Run]) -> Found:
    """Combine the runs by minimum, because other load on the machine can only add time."""
    start_up = min(run.restore for run in new)
    rows = [
        Linear(
            devices,
            min(run.timed for run in of) / _CASE.records * 1e6,
            min(run.end for run in of),
            max(0.0, min(run.restore for run in of) - start_up),
            of[-1].mb,
        )
        for devices, of in runs.items()
    ]
    return Found(rows, min(run.first for run in new) / _FIRST * 1e6)
