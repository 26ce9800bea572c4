"""Does it stay as fast with more shards: records per second of processor time, one to 64 of them busy on a machine.

All children are there from the beginning, and warm: each has stored a segment, so that it has what it needs once.
Then some of them get a minute of a full shard, as fast as they take it, and the others nothing; few and many in turn,
so that what the machine does besides meets all. In a minute two segments end. How children begin and how shards end
is not timed: it is paid once, however many records there are.
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
# Without a host each takes 150 MB.
COUNTS_ALONE = (1, 4)
_MINUTE = 60_000  # records
_CASE = Case(warm=50_500)
# Children that have a minute each time, together or one after the other: a single minute is soon over.
_AT_LEAST = 8
_PROCESS_CLOCK = 2  # Linux: with a process's number, the clock of all its threads

Groups = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Parallel:
    """So many together; both are records per second of their processor time, `ratio` to the fewest together."""

    shards: int
    per_cpu_second: float
    per_second: float
    ratio: float


def measure(counts: Sequence[int] = COUNTS, tree: Path | None = None, *, host: bool = True) -> list[Parallel]:
    """By number of shards that are busy: half a minute up to 16, one for 64 (6 GB), where nothing else runs.

    With `host`, the shard host serves them. Raises LookupError where the checkout has none.
    """
    turns = _turns(sorted(set(counts)))
    minutes = max(
        sum(group.count(child) for _, groups in turns for group in groups) for child in range(max(counts))
    )
    case = replace(_CASE, records=minutes * _MINUTE)
    with together(max(counts), case, tree, host=host) as children:
        return _ratios(_race(children, turns, case))


def _turns(counts: Sequence[int]) -> list[tuple[int, Groups]]:
    """Up to the most and down again: how many together, and who; all in turn."""
    who = cycle(range(counts[-1]))
    return [
        (count, [[next(who) for _ in range(count)] for _ in range(max(1, _AT_LEAST // count))])
        for count in (*counts, *counts[-2::-1])
    ]


def _race(
    children: Sequence[Child], turns: Sequence[tuple[int, Groups]], case: Case
) -> Mapping[int, tuple[int, float, float]]:
    """Minutes, processor seconds and seconds by number of shards."""
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
            so_far = found.get(count, (0, 0.0, 0.0))
            found[count] = (so_far[0] + count * len(groups), so_far[1] + cpu, so_far[2] + wall)
    return found


def _ratios(found: Mapping[int, tuple[int, float, float]]) -> list[Parallel]:
    rates = {count: minutes * _MINUTE / cpu for count, (minutes, cpu, _) in found.items()}
    return [
        Parallel(count, rates[count], minutes * _MINUTE / wall, rates[count] / rates[min(rates)])
        for count, (minutes, _, wall) in sorted(found.items())
    ]


@contextmanager
def together(count: int, case: Case, tree: Path | None, *, host: bool) -> Iterator[Sequence[Child]]:
    """So many children, each with its shard. Raises AssertionError where one of them ends badly."""
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
    """The lines before the clock starts, all of them done."""
    for line in (*before, TICK):
        child.send(line)


def used(children: Sequence[Child]) -> float:
    """Processor seconds of all that serves them, the host included; finer than the ticks of /proc."""
    total = 0.0
    for process in {
        process.pid for mark in {child.mark for child in children} for process in processes(mark)
    }:
        with suppress(OSError):
            total += time.clock_gettime((~process << 3) | _PROCESS_CLOCK)
    return total
