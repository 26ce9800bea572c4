"""Measures memory per additional shard, as proportional set size (PSS) for 1, 4, 8 … shards, and time to ready.

Runs the real child with boto3 clients against the embedded AWS. Each child has stored and committed a segment with
dead letters and has another segment open. PSS divides shared pages among the processes that share them, so the sum
over all processes is the memory that the machine needs. Pages of mapped files, which unrelated processes may share
too, are counted once.
"""

from __future__ import annotations

import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from stream_app import app
from stream_app.local.server import process as aws
from tests.bench.consumer.data import Case, Lines, lines
from tests.bench.consumer.hosting import hosted
from tests.bench.consumer.ways import product_path
from tests.bench.consumer.wire import MARK, TICK, Child, processes

_MB = 1024.0  # kB, the unit of /proc
_CASE = Case(records=2_000, warm=1_500, bad=0.01)
_TICK = b'{"action":"processRecords","records":[],"millisBehindLatest":0}\n'
_BEHIND, _HERE = b'"millisBehindLatest":1000', b'"millisBehindLatest":0'
_QUIET = 11.0  # seconds until an idle shard has released unused memory
_NAME = "bench"


@dataclass(frozen=True, slots=True)
class Memory:
    """Megabytes and `processes` by number of shards; median `ready_ms` of all children but the first.

    `busy` is measured right after the batches; `mb` after an idle period and one call without records.
    """

    mb: Mapping[int, float]
    busy: Mapping[int, float]
    processes: Mapping[int, int]
    first_ready_ms: float
    ready_ms: float

    @property
    def mb_per_extra_shard(self) -> float:
        """Return the slope of `mb` between the smallest and the largest number of shards."""
        return _slope(self.mb)

    @property
    def busy_per_extra_shard(self) -> float:
        """Return the slope of `busy` between the smallest and the largest number of shards."""
        return _slope(self.busy)

    def to_json(self) -> dict[str, Any]:
        """Return the values as built-in types."""
        steps = {f"{a} to {b}": (self.mb[b] - self.mb[a]) / (b - a) for a, b in pairwise(sorted(self.mb))}
        return {
            "mb": {str(shards): mb for shards, mb in self.mb.items()},
            "processes": {str(shards): count for shards, count in self.processes.items()},
            "mb_per_extra_shard": self.mb_per_extra_shard,
            "mb_per_extra_shard_by_step": steps,
            "busy_mb": {str(shards): mb for shards, mb in self.busy.items()},
            "busy_mb_per_extra_shard": self.busy_per_extra_shard,
            "first_ready_ms": self.first_ready_ms,
            "ready_ms": self.ready_ms,
        }


def _slope(mb: Mapping[int, float]) -> float:
    few, many = min(mb), max(mb)
    return (mb[many] - mb[few]) / (many - few)


def measure(
    folder: Path, counts: Sequence[int] = (1, 4, 8), tree: Path | None = None, *, host: bool = False
) -> Memory:
    """Measure one process per shard, or the forkserver if `host`. Raises LookupError if there is none."""
    fed = _at_the_tip(lines(_CASE))
    with aws.start(log=folder / "aws.log") as running:
        environ = _environ({**os.environ, **running.environment()}, folder, tree)
        shards = _shards(environ, max(counts))
        alone = [sys.executable, "-P", "-m", "stream_app.record_processor"]
        with (
            hosted(folder, environ, arranged=False) if host else nullcontext((alone, environ)) as (
                command,
                more,
            )
        ):

            def start(at: int) -> Child:
                return Child(command, more, folder / f"child-{at}.log", pinned=False)

            busy, _, _ = _fill(start, shards, counts, fed, idle=False)
            mb, number, ready = _fill(start, shards, counts, fed, idle=True)
    return Memory(mb, busy, number, ready[0], median(ready[1:]))


def _fill(
    start: Callable[[int], Child], shards: Sequence[str], counts: Sequence[int], fed: Lines, *, idle: bool
) -> tuple[dict[int, float], dict[int, int], list[float]]:
    """Return megabytes and processes at each count, and each child's time to ready in ms."""
    children: list[Child] = []
    ready: list[float] = []
    mb, number = {}, {}
    try:
        for at, shard in enumerate(shards):
            children.append(start(at))
            ready.append(1000 * children[-1].initialize(shard))
            _feed(children[-1], fed)
            if len(children) in counts:
                time.sleep(_QUIET if idle else 1.0)  # include the work that a process does when idle
                for child in children if idle else ():
                    child.send(_TICK)
                mb[len(children)], number[len(children)] = pss_mb(children[-1].mark)
    finally:
        for child in children:
            child.close()
    return mb, number, ready


def _at_the_tip(fed: Lines) -> Lines:
    """Mark the batches as not behind the tip, so that each is processed immediately."""
    warm, timed = ([line.replace(_BEHIND, _HERE) for line in part] for part in (fed.warm, fed.timed))
    return fed._replace(warm=warm, timed=timed)


def _feed(child: Child, fed: Lines) -> None:
    """Send a complete segment, wait for its commit, and start the next segment."""
    for line in (*fed.warm, TICK):
        child.send(line)
    time.sleep(1.1)  # until the next commit is due
    for line in (*fed.timed, TICK):
        child.send(line)
    if not child.checkpoints:
        raise AssertionError("no segment was committed")


def _environ(base: Mapping[str, str], folder: Path, tree: Path | None) -> dict[str, str]:
    properties = folder / "bench.properties"
    properties.write_text(
        f"applicationName = {_NAME}\nstreamName = {_NAME}\nregionName = us-east-1\n"
        f"app.bucket = {_NAME}\napp.checkpoint_seconds = 1\n"
        f"app.dead_letter_queue = {base['AWS_ENDPOINT_URL']}/123456789012/{_NAME}\n"
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
    """Return the PSS in MB of all processes of a run, and their number."""
    kb, count = 0, 0
    files: dict[str, int] = {}
    for process in processes(mark):
        with suppress(OSError):
            folder = Path(f"/proc/{process.pid}")
            kb += sum(_sizes(folder / "smaps_rollup", ("Pss_Anon:", "Pss_Shmem:")))
            for mapping, resident in _of_files(folder):
                files[mapping] = max(resident, files.get(mapping, 0))
            count += 1
    return (kb + sum(files.values())) / _MB, count


def _sizes(path: Path, names: Sequence[str]) -> Iterator[int]:
    for line in path.read_text().splitlines():
        if line.startswith(tuple(names)):
            yield int(line.split()[1])


def _of_files(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield each mapping of a file on disk as (file and offset, resident kB without private copies)."""
    text = (folder / "smaps").read_text()
    for piece in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", text, flags=re.MULTILINE)[1:]:
        head, *lines = piece.splitlines()
        _, access, offset, device, inode, *name = head.split(maxsplit=5)
        if name and name[0].startswith("/") and not name[0].startswith(_IN_MEMORY):
            sizes = {words[0]: int(words[1]) for line in lines if (words := line.split())[-1] == "kB"}
            yield f"{device} {inode} {offset} {access}", sizes["Rss:"] - sizes["Anonymous:"]


_IN_MEMORY = ("/memfd:", "/dev/shm/", "/dev/zero")
