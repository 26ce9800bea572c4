"""The daemon's side of one child over real pipes, with a clock and a meter of processor time."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from tests.bench.consumer.data import SHARD, Lines

# In the environment of a child and of whatever it starts; its value is the run's own.
MARK = "BENCH_RUN"
# Whatever was kept back to be done together is done at a tick.
TICK = b'{"action":"processRecords","records":[],"millisBehindLatest":1000}\n'


@dataclass(frozen=True, slots=True)
class Timing:
    """What the timed part took, in seconds: on the clock, and of processor time of everything that did the work."""

    records: int
    wall: float
    cpu: float
    start: float
    rss_mb: float

    @property
    def per_cpu_second(self) -> float:
        """Records per second of processor time: what one core can do."""
        return self.records / self.cpu

    @property
    def per_second(self) -> float:
        """Records per second on the clock, the child on one core."""
        return self.records / self.wall


class Child:
    """A running child. `pinned`, it is bound to one core, and the feeder may use another."""

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str], log: Path, *, pinned: bool = True
    ) -> None:
        self._log = log.open("wb")
        self.mark = environ[MARK]
        self.begun = time.perf_counter()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=dict(environ),
            pipesize=65_536,  # what KCL's child gets
        )
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("no pipes")
        if pinned:
            os.sched_setaffinity(self.process.pid, {max(os.sched_getaffinity(0))})
        self._in: IO[bytes] = self.process.stdin
        self._out: IO[bytes] = self.process.stdout
        self.checkpoints = 0

    def initialize(self, shard: str = SHARD) -> float:
        """Give it a shard; the seconds since its start when it says that it is ready."""
        self.act("initialize", shardId=shard, sequenceNumber="TRIM_HORIZON", subSequenceNumber=0)
        return time.perf_counter() - self.begun

    def act(self, action: str, **members: object) -> None:
        """One action, and its answer."""
        self.send(json.dumps({"action": action, **members}).encode() + b"\n", action)

    def send(self, line: bytes, action: str = "processRecords") -> None:
        """A line as it is, and its answer; checkpoints in between succeed."""
        self._write(line)
        while True:
            answer = self._read()
            if answer["action"] == "checkpoint":
                self.checkpoints += 1
                self._write(json.dumps({**answer, "error": None}).encode() + b"\n")
            elif answer == {"action": "status", "responseFor": action}:
                return
            else:
                raise AssertionError(f"unexpected answer to {action}: {answer}")

    def _write(self, line: bytes) -> None:
        self._in.write(line)
        self._in.flush()

    def _read(self) -> dict[str, object]:
        while line := self._out.readline():
            if line.strip():
                found: dict[str, object] = json.loads(line)
                return found
        raise AssertionError(f"the child ended: see {self._log.name}")

    def cpu(self) -> float:
        """Seconds of processor time so far: its own, and that of all it started."""
        total = 0.0
        for process in processes(self.mark):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def close(self) -> None:
        """End of input, as when the daemon stops. Raises AssertionError when it ends badly."""
        with self._log, self.process:
            self._in.close()
            if self.process.wait(timeout=120):
                raise AssertionError(f"exit {self.process.returncode}: see {self._log.name}")


def processes(mark: str) -> list[psutil.Process]:
    """Every process that was started, directly or not, with this mark in its environment: children, shard hosts."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError, psutil.NoSuchProcess):
            if wanted in path.read_bytes().split(b"\0"):
                found.append(psutil.Process(int(path.parent.name)))
    return found


def play(child: Child, lines: Lines, passes: int = 1, *, limit: int | None = None) -> Timing:
    """Initialize, warm up, then the timed lines and the end of the shard, which flushes everything.

    `passes` sends the timed lines again, for children that keep nothing; `limit` sends only so many of them.
    """
    ready = child.initialize()
    for line in (*lines.warm, TICK):
        child.send(line)
    timed = lines.timed[:limit]
    count = lines.timed_records // len(lines.timed) * len(timed) * passes
    cpu, begun = child.cpu(), time.perf_counter()
    for _ in range(passes):
        for line in timed:
            child.send(line)
    child.act("shardEnded")
    wall, cpu = time.perf_counter() - begun, child.cpu() - cpu
    rss = sum(process.memory_info().rss for process in processes(child.mark)) / 1e6
    child.close()
    return Timing(count, wall, cpu, ready, rss)
