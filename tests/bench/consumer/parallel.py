"""Does it stay as fast with more shards: records per second of processor time, several children fed at once."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.bench.consumer.data import Case, lines
from tests.bench.consumer.hosting import hosted
from tests.bench.consumer.ways import OURS, prepared, start
from tests.bench.consumer.wire import TICK, Child


@dataclass(frozen=True, slots=True)
class Parallel:
    """All children together."""

    shards: int
    per_cpu_second: float
    per_second: float


def measure(shards: int, case: Case, tree: Path | None = None, *, host: bool = False) -> Parallel:
    """Each child gets the same lines, in a thread of its own; warm before the clocks start.

    With `host`, the shard host serves them. Raises LookupError where the checkout has none.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        if not host:
            return _race(
                [start(OURS, case, folder / str(at), tree, pinned=False) for at in range(shards)], case
            )
        environ = prepared(case, folder, tree)
        with hosted(folder, environ, arranged=True) as (command, more):
            children = [Child(command, more, folder / f"{at}.log", pinned=False) for at in range(shards)]
            return _race(children, case)


def _race(children: Sequence[Child], case: Case) -> Parallel:
    fed = lines(case)
    for child in children:
        child.initialize()
        for line in (*fed.warm, TICK):
            child.send(line)

    def feed(child: Child) -> None:
        for line in fed.timed:
            child.send(line)
        child.act("shardEnded")

    cpu, begun = _cpu(children), time.perf_counter()
    with ThreadPoolExecutor(len(children)) as pool:
        list(pool.map(feed, children))
    wall, cpu = time.perf_counter() - begun, _cpu(children) - cpu
    for child in children:
        child.close()
    records = fed.timed_records * len(children)
    return Parallel(len(children), records / cpu, records / wall)


def _cpu(children: Sequence[Child]) -> float:
    """Of all together; those of a host bear one mark."""
    return sum({child.mark: child.cpu() for child in children}.values())
