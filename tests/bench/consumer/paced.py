"""What a record costs a shard that is not behind: small batches at their own pace, on one shard or on many.

Each has 250 records a second in five polls, as KCL's daemon reads where it has caught up. What is counted is batches;
no segment ends meanwhile.
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
    """So many shards: records per second of processor time, what a batch takes, and how many cores all keep busy."""

    shards: int
    per_cpu_second: float
    batch_ms: float
    cores: float
    ratio: float


def measure(counts: Sequence[int] = COUNTS, tree: Path | None = None) -> list[Paced]:
    """By number of shards, with the shard host. Raises LookupError where the checkout has none."""
    took = {count: _took(count, tree) for count in sorted(set(counts))}
    each = {count: cpu / count for count, cpu in took.items()}
    batches = _POLLS * _SECONDS
    return [
        Paced(
            count,
            batches * _BATCH / cpu,
            cpu / batches * 1_000,
            took[count] / _SECONDS,
            each[min(each)] / cpu,
        )
        for count, cpu in each.items()
    ]


def _took(count: int, tree: Path | None) -> float:
    fed = lines(_CASE)
    timed = [line.replace(_BEHIND, _HERE) for line in fed.timed]
    with together(count, _CASE, tree, host=True) as children, ThreadPoolExecutor(count) as pool:
        list(pool.map(lambda child: warm(child, fed.warm), children))
        before, begun = used(children), time.perf_counter()
        list(pool.map(lambda at: _feed(children[at], timed, begun + at / count / _POLLS), range(count)))
        return used(children) - before


def _feed(child: Child, timed: Sequence[bytes], begin: float) -> None:
    """Polls of different shards do not fall together."""
    for at, line in enumerate(timed):
        time.sleep(max(0.0, begin + at / _POLLS - time.perf_counter()))
        child.send(line)
