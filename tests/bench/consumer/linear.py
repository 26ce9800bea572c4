"""Does it cost the same with many devices: microseconds of processor time a record, snapshots included.

Every device was met before (`grown`), whole segments are timed, and no snapshot is due meanwhile but those so small
that each segment takes one. What a snapshot of all devices takes is measured at the shard's end, and counted as often
as the product takes one: each `checkpoint_seconds`, or more seldom where it takes long. In that time a core that has
enough to do spends so much on the snapshots of the devices of all its shards, however many these are, and the rest on
records. A shard that is alone on a core has far fewer records in that time, 1,000 a second at most: told apart. So is
the first meeting.
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
FULL_SHARD = 1_000  # records a second
# A full shard's minute is a segment of 50,000 records and one of 10,000. The last batch before the clock begins the
# first minute; the third's large segment is the last that is timed, so that none is open at the shard's end.
_CASE = Case(warm=10_000, records=169_500, lives=grown.LIVED)
# Of devices that are new, so many are timed.
_FIRST = 80_000
_NEVER = {"STREAM_APP_CHECKPOINT_SECONDS": "86400"}


@dataclass(frozen=True, slots=True)
class Run:
    """Processor seconds: to restore the state, for the first and for all records, for the end; MB stored."""

    restore: float
    first: float
    timed: float
    end: float
    mb: float


@dataclass(frozen=True, slots=True)
class Linear:
    """The best of each over some runs: `stages` of a record in microseconds, `snapshot` and `restore` in seconds."""

    devices: int
    stages: float
    snapshot: float
    restore: float
    mb: float

    @property
    def every(self) -> float:
        """How far two snapshots are apart, in seconds."""
        return max(INTERVAL, self.snapshot / SNAPSHOT_SHARE)

    @property
    def record(self) -> float:
        """Snapshots included, on a core that has enough to do."""
        return self.stages * self.every / (self.every - self.snapshot)

    @property
    def alone(self) -> float:
        """Snapshots included, for one shard at its limit."""
        return self.stages + self.snapshot * 1e6 / (self.every * FULL_SHARD)

    def to_json(self) -> dict[str, Any]:
        """Built-in types."""
        return {**asdict(self), "every": self.every, "record": self.record, "alone": self.alone}


@dataclass(frozen=True, slots=True)
class Found:
    """By number of devices, and what the first record of a device takes (stages), in microseconds."""

    by_devices: Sequence[Linear]
    first_meeting: float

    def ratio(self, one: Linear) -> float:
        """Its rate over the highest there is."""
        return min(other.record for other in self.by_devices) / one.record

    def to_json(self) -> dict[str, Any]:
        """For build/bench/consumer.json."""
        rows = [{**one.to_json(), "ratio": self.ratio(one)} for one in self.by_devices]
        return {"first_meeting_us": self.first_meeting, "by_devices": rows}


def measure(rounds: int = 2, tree: Path | None = None, counts: Sequence[int] = COUNTS) -> Found:
    """All numbers of devices in turn, `rounds` times: about 20 s, and 25 s a round."""
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
    """The states of fleets, each in the folder of its number, made by the product that is measured."""
    environ = {**os.environ, "PYTHONPATH": product_path(tree)}
    command = [sys.executable, "-P", "-m", grown.__name__, str(folder), *map(str, counts)]
    subprocess.run(command, env=environ, check=True)


def run(lines: Lines, devices: int, state: Path | None, tree: Path | None) -> Run:
    """One child from its state, or from nothing, to the shard's end."""
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
    """Processor time at the beginning, with the state, warm, after the first records, after all, and at the end."""
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
    """The best of each: what the machine did besides only adds."""
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
