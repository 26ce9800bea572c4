"""What a further shard takes: proportional set size of everything that serves 1, 4, 8 … shards, and time to ready.

The real child with boto3's clients on the embedded AWS, each fed some batches first. PSS shares out pages that
processes have in common, so that its sum over them is what the machine has to have.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from stream_app import app
from stream_app.local import aws
from tests.bench.consumer.data import Case, Lines, lines
from tests.bench.consumer.hosting import hosted
from tests.bench.consumer.ways import product_path
from tests.bench.consumer.wire import MARK, TICK, Child, processes

_MB = 1024.0  # kB of /proc
_CASE = Case(records=2_000, warm=500)
_NAME = "bench"


@dataclass(frozen=True, slots=True)
class Memory:
    """`mb` and `processes` by number of shards; `ready_ms` of each child, the first apart."""

    mb: Mapping[int, float]
    processes: Mapping[int, int]
    first_ready_ms: float
    ready_ms: float

    @property
    def mb_per_extra_shard(self) -> float:
        """The slope between the smallest and the largest number of shards."""
        few, many = min(self.mb), max(self.mb)
        return (self.mb[many] - self.mb[few]) / (many - few)

    def to_json(self) -> dict[str, Any]:
        """Built-in types."""
        steps = {f"{a} to {b}": (self.mb[b] - self.mb[a]) / (b - a) for a, b in pairwise(sorted(self.mb))}
        return {
            "mb": {str(shards): mb for shards, mb in self.mb.items()},
            "processes": {str(shards): count for shards, count in self.processes.items()},
            "mb_per_extra_shard": self.mb_per_extra_shard,
            "mb_per_extra_shard_by_step": steps,
            "first_ready_ms": self.first_ready_ms,
            "ready_ms": self.ready_ms,
        }


def measure(
    folder: Path, counts: Sequence[int] = (1, 4, 8), tree: Path | None = None, *, host: bool = False
) -> Memory:
    """One process a shard, or with `host` the shard host. Raises LookupError where the checkout has none."""
    fed = lines(_CASE)
    with aws.start(log=folder / "aws.log") as running:
        environ = _environ({**os.environ, **running.environment()}, folder, tree)
        shards = _shards(environ, max(counts))
        if not host:
            return _fill(
                [sys.executable, "-P", "-m", "stream_app.child"], environ, shards, counts, fed, folder
            )
        with hosted(folder, environ, arranged=False) as (command, more):
            return _fill(command, more, shards, counts, fed, folder)


def _fill(
    command: Sequence[str],
    environ: Mapping[str, str],
    shards: Sequence[str],
    counts: Sequence[int],
    fed: Lines,
    folder: Path,
) -> Memory:
    children: list[Child] = []
    ready: list[float] = []
    mb, number = {}, {}
    try:
        for at, shard in enumerate(shards):
            children.append(Child(command, environ, folder / f"child-{at}.log", pinned=False))
            ready.append(1000 * children[-1].initialize(shard))
            for line in (*fed.warm, *fed.timed, TICK):
                children[-1].send(line)
            if len(children) in counts:
                time.sleep(1.0)  # what a process does when it is idle belongs to it
                mb[len(children)], number[len(children)] = pss_mb(environ[MARK])
    finally:
        for child in children:
            child.close()
    return Memory(mb, number, ready[0], median(ready[1:]))


def _environ(base: Mapping[str, str], folder: Path, tree: Path | None) -> dict[str, str]:
    properties = folder / "bench.properties"
    properties.write_text(
        f"applicationName = {_NAME}\nstreamName = {_NAME}\nregionName = us-east-1\n"
        f"app.bucket = {_NAME}\napp.dead_letter_queue = {base['AWS_ENDPOINT_URL']}/123456789012/{_NAME}\n"
    )
    path = {"PYTHONPATH": product_path(tree), "STREAM_APP_PROPERTIES": str(properties)}
    return {**base, **path, MARK: uuid.uuid4().hex}


def _shards(environ: Mapping[str, str], count: int) -> list[str]:
    client = app.clients(environ)
    client("kinesis").create_stream(StreamName=_NAME, ShardCount=count)
    client("s3").create_bucket(Bucket=_NAME)
    client("sqs").create_queue(QueueName=_NAME)
    return [shard["ShardId"] for shard in client("kinesis").list_shards(StreamName=_NAME)["Shards"]]


def pss_mb(mark: str) -> tuple[float, int]:
    """Megabytes of all processes of a run, and how many they are."""
    total, count = 0.0, 0
    for process in processes(mark):
        with suppress(OSError):
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in rollup if line.startswith("Pss:")) / _MB
            count += 1
    return total, count
