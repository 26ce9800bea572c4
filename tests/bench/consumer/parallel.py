"""Does it stay as fast with more shards: records per second of processor time, several children fed at once."""

from __future__ import annotations

import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.consumer.data import Case, lines
from tests.bench.consumer.ways import OURS, start


@dataclass(frozen=True, slots=True)
class Parallel:
    """All children together."""

    shards: int
    per_cpu_second: float
    per_second: float


def measure(shards: int, case: Case, tree: Path | None = None) -> Parallel:
    """Each child gets the same lines, in a thread of its own; warm before the clocks start."""
    fed = lines(case)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        children = [start(OURS, case, Path(folder) / str(at), tree, pinned=False) for at in range(shards)]
        for child in children:
            child.initialize()
            for line in fed.warm:
                child.send(line)

        def feed(at: int) -> None:
            for line in fed.timed:
                children[at].send(line)
            children[at].act("shardEnded")

        cpu, begun = sum(child.cpu() for child in children), time.perf_counter()
        threads = [threading.Thread(target=feed, args=(at,)) for at in range(shards)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wall, cpu = time.perf_counter() - begun, sum(child.cpu() for child in children) - cpu
        for child in children:
            child.close()
    records = fed.timed_records * shards
    return Parallel(shards, records / cpu, records / wall)
