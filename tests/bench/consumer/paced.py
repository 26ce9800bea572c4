"""Measures the cost per record at the tip of the shard: small batches at a fixed rate, on one or more shards.

Each shard receives 250 records per second in five polls, as from KCL's daemon when it has caught up. Only batches are
measured; no segment ends during the timed part.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.bench.consumer.data import Case, lines
from tests.bench.consumer.parallel import together, used, warm
from tests.bench.consumer.wire import Child

COUNTS = (1, 16, 64)
_BATCH, _POLLS, _SECONDS = 50, 5, 12
_CASE = Case(batch=_BATCH, records=_BATCH * _POLLS * _SECONDS, warm=5_000)
_BEHIND, _HERE = b'"millisBehindLatest":1000', b'"millisBehindLatest":0'


@dataclass(frozen=True, slots=True)
class Paced:
    """Results for a number of shards: records per CPU second, CPU ms per batch, and the number of busy cores."""

    shards: int
    per_cpu_second: float
    batch_ms: float
    cores: float
    ratio: float


def measure(counts: Sequence[int] = COUNTS, tree: Path | None = None) -> list[Paced]:
    """Measure each number of shards with the forkserver. Raises LookupError if the checkout has none."""
    cpu_by_count = {count: _cpu_seconds(count, tree) for count in sorted(set(counts))}
    each = {count: cpu / count for count, cpu in cpu_by_count.items()}
    batches = _POLLS * _SECONDS
    return [
        Paced(
            count,
            batches * _BATCH / cpu,
            cpu / batches * 1_000,
            cpu_by_count[count] / _SECONDS,
            each[min(each)] / cpu,
        )
        for count, cpu in each.items()
    ]


def _cpu_seconds(count: int, tree: Path | None) -> float:
    fed = lines(_CASE)
    timed = [line.replace(_BEHIND, _HERE) for line in fed.timed]
    with together(count, _CASE, tree, host=True) as children, ThreadPoolExecutor(count) as pool:
        list(pool.map(lambda child: warm(child, fed.warm), children))
        before, begun = used(children), time.perf_counter()
        list(pool.map(lambda at: _feed(children[at], timed, begun + at / count / _POLLS), range(count)))
        return used(children) - before


def _feed(child: Child, timed: Sequence[bytes], begin: float) -> None:
    """Send the lines at five per second; the caller offsets `begin` so that polls of shards do not coincide."""
    for at, line in enumerate(timed):
        time.sleep(max(0.0, begin + at / _POLLS - time.perf_counter()))
        child.send(line)
