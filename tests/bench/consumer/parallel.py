"""Measures throughput in records per CPU second with 1 to 64 busy shards on one machine.

All children run from the start and are warm: each has already stored a segment. Then some children receive a minute's
records of a full shard as fast as they accept them, and the others receive nothing. Small and large groups alternate,
so that other load on the machine affects all of them. Two segments end in each minute. Startup and the end of the
shard are not timed, because their cost does not depend on the number of records.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

from tests.bench.consumer.data import Case, lines
from tests.bench.consumer.hosting import hosted
from tests.bench.consumer.ways import OURS, prepared, start
from tests.bench.consumer.wire import TICK, Child, processes

COUNTS = (1, 4, 16, 64)
# Without the forkserver each shard uses 150 MB.
COUNTS_ALONE = (1, 4)
_MINUTE = 60_000  # records
_CASE = Case(warm=50_500)
# Minimum number of one-minute inputs per measurement, because a single one is too short to time.
_AT_LEAST = 8
_PROCESS_CLOCK = 2  # Linux: combined with a process id, the CPU clock of the whole process

Groups = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Parallel:
    """Results for `shards` busy shards: records per CPU second and per second; `ratio` is to the smallest count."""

    shards: int
    per_cpu_second: float
    per_second: float
    ratio: float


def measure(counts: Sequence[int] = COUNTS, tree: Path | None = None, *, host: bool = True) -> list[Parallel]:
    """Measure each number of busy shards: 30 s for up to 16 shards, 60 s (and 6 GB) for 64.

    With `host`, uses the forkserver. Raises LookupError if the checkout has none.
    """
    turns = _turns(sorted(set(counts)))
    minutes = max(
        sum(group.count(child) for _, groups in turns for group in groups) for child in range(max(counts))
    )
    case = replace(_CASE, records=minutes * _MINUTE)
    with together(max(counts), case, tree, host=host) as children:
        return _ratios(_race(children, turns, case))


def _turns(counts: Sequence[int]) -> list[tuple[int, Groups]]:
    """Return (count, groups of children) for ascending, then descending counts; children take turns."""
    children = cycle(range(counts[-1]))
    return [
        (count, [[next(children) for _ in range(count)] for _ in range(max(1, _AT_LEAST // count))])
        for count in (*counts, *counts[-2::-1])
    ]


def _race(
    children: Sequence[Child], turns: Sequence[tuple[int, Groups]], case: Case
) -> Mapping[int, tuple[int, float, float]]:
    """Return minutes of input, CPU seconds and wall-clock seconds by number of shards."""
    fed = lines(case)
    each = _MINUTE // case.batch
    left = [iter(range(0, len(fed.timed), each)) for _ in children]

    def minute(child: int) -> None:
        at = next(left[child])
        for line in fed.timed[at : at + each]:
            children[child].send(line)

    found: dict[int, tuple[int, float, float]] = {}
    with ThreadPoolExecutor(len(children)) as pool:
        list(pool.map(lambda child: warm(child, fed.warm), children))
        for count, groups in turns:
            cpu, begun = used(children), time.perf_counter()
            for group in groups:
                list(pool.map(minute, group))
            wall, cpu = time.perf_counter() - begun, used(children) - cpu
            previous = found.get(count, (0, 0.0, 0.0))
            found[count] = (previous[0] + count * len(groups), previous[1] + cpu, previous[2] + wall)
    return found


def _ratios(found: Mapping[int, tuple[int, float, float]]) -> list[Parallel]:
    rates = {count: minutes * _MINUTE / cpu for count, (minutes, cpu, _) in found.items()}
    return [
        Parallel(count, rates[count], minutes * _MINUTE / wall, rates[count] / rates[min(rates)])
        for count, (minutes, _, wall) in sorted(found.items())
    ]


@contextmanager
def together(count: int, case: Case, tree: Path | None, *, host: bool) -> Iterator[Sequence[Child]]:
    """Run `count` children, one shard each. Raises AssertionError if a child fails."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        if not host:
            with _until_end(
                [start(OURS, case, folder / str(at), tree, pinned=False) for at in range(count)]
            ) as children:
                yield children
            return
        environ = prepared(case, folder, tree)
        with (
            hosted(folder, environ, arranged=True) as (command, more),
            _until_end(
                [Child(command, more, folder / f"{at}.log", pinned=False) for at in range(count)]
            ) as children,
        ):
            yield children


@contextmanager
def _until_end(children: Sequence[Child]) -> Iterator[Sequence[Child]]:
    for child in children:
        child.initialize()
    yield children
    for child in children:
        child.act("shardEnded")
        child.close()


def warm(child: Child, before: Sequence[bytes]) -> None:
    """Send the warm-up lines and wait until they are processed."""
    for line in (*before, TICK):
        child.send(line)


def used(children: Sequence[Child]) -> float:
    """Return CPU seconds of the children and the forkserver, more precise than the clock ticks of /proc."""
    total = 0.0
    for process in {
        process.pid for mark in {child.mark for child in children} for process in processes(mark)
    }:
        with suppress(OSError):
            total += time.clock_gettime((~process << 3) | _PROCESS_CLOCK)
    return total
