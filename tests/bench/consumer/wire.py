"""Plays the daemon for one child over real pipes, and measures wall-clock and CPU time."""

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

# Environment variable of a child and its descendants; the value identifies the run.
MARK = "BENCH_RUN"
# A call without records makes the consumer process records that it has held back to coalesce.
TICK = b'{"action":"processRecords","records":[],"millisBehindLatest":1000}\n'


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall-clock and CPU seconds of the timed part; CPU time covers all processes of the run."""

    records: int
    wall: float
    cpu: float
    start: float
    rss_mb: float

    @property
    def per_cpu_second(self) -> float:
        """Records per CPU second: the capacity of one core."""
        return self.records / self.cpu

    @property
    def per_second(self) -> float:
        """Records per wall-clock second, with the child on one core."""
        return self.records / self.wall


class Child:
    """A running child; if `pinned`, it is bound to one core and the sender may use another."""

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
            pipesize=65_536,  # same size as for KCL's child
        )
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("the child has no pipes")
        if pinned:
            os.sched_setaffinity(self.process.pid, {max(os.sched_getaffinity(0))})
        self._in: IO[bytes] = self.process.stdin
        self._out: IO[bytes] = self.process.stdout
        self.checkpoints = 0

    def initialize(self, shard: str = SHARD, checkpoint: str = "TRIM_HORIZON") -> float:
        """Initialize a shard; return the seconds from launch to the answer."""
        self.act("initialize", shardId=shard, sequenceNumber=checkpoint, subSequenceNumber=0)
        return time.perf_counter() - self.begun

    def act(self, action: str, **members: object) -> None:
        """Send one action and wait for its answer."""
        self.send(json.dumps({"action": action, **members}).encode() + b"\n", action)

    def send(self, line: bytes, action: str = "processRecords") -> None:
        """Send a line and wait for its answer; confirm checkpoints in between."""
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
        """Return the CPU seconds used so far by the child and its descendants."""
        total = 0.0
        for process in processes(self.mark):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def close(self) -> None:
        """Close stdin, as the daemon does. Raises AssertionError if the exit code is not 0."""
        with self._log, self.process:
            self._in.close()
            if self.process.wait(timeout=120):
                raise AssertionError(f"exit {self.process.returncode}: see {self._log.name}")


def processes(mark: str) -> list[psutil.Process]:
    """Return all processes (children, forkservers) that have this mark in their environment."""
    expected, found = f"{MARK}={mark}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError, psutil.NoSuchProcess):
            if expected in path.read_bytes().split(b"\0"):
                found.append(psutil.Process(int(path.parent.name)))
    return found


def play(child: Child, lines: Lines, passes: int = 1, *, limit: int | None = None) -> Timing:
    """Run a child through warm-up, the timed lines and the end of the shard, which flushes all output.

    `passes` repeats the timed lines, for stateless children; `limit` is the maximum number of timed lines.
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
