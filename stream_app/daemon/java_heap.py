"""The size of the daemon's heap, and how many records it reads at once, by shards, record size and memory.

KCL prefetches three batches or 8 MiB of each shard, whichever is reached first, and then one batch more. What a batch
of 10 MiB, the most that a read returns, takes while it is received and written to the child was measured
(`python -m tests.bench.heap`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from stream_app.errors import ConfigError, Problem

HEAP_ENVIRONMENT, HEAP_PROPERTY = "STREAM_APP_JAVA_HEAP", "app.java_heap"
RECORD_ENVIRONMENT, RECORD_PROPERTY = "STREAM_APP_RECORD_BYTES", "app.record_bytes"
OUT_OF_MEMORY = 3
"""The exit code of a JVM with -XX:+ExitOnOutOfMemoryError."""

MIB = 1 << 20
_BASE = 120 * MIB  # KCL and the AWS SDK without a shard
_PREFETCH, _READ = 8 * MIB, 10 * MIB
_COPIES = 8  # of a batch: the response, its records, their JSON text as it is built and as it is written
_OBJECTS = 512  # bytes of a record's objects beside its data
_LEAST_HEAP = 256 * MIB
_SHARE = 2  # of the memory the heap takes one part: the others are for the shards' processes
_ASSUMED_SHARDS, _MOST_SHARDS = 4, 64
_ASSUMED_RECORD = 1_024
_MOST_RECORDS = 10_000
_SHARD_RECORDS, _SHARD_BYTES = 1_000, MIB  # what a shard accepts in a second
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_SIZE = re.compile(r"([0-9]+)([kKmMgG])")


class Sizing(NamedTuple):
    """The heap as `-Xmx` writes it, the daemon's maxRecords, and for how many shards both are."""

    heap: str
    max_records: int
    shards: int
    lowered: bool

    def told(self) -> dict[str, object]:
        """Fields of a log line; what was lowered is a warning with its remedy."""
        line: dict[str, object] = {"heap": self.heap, "max_records": self.max_records, "shards": self.shards}
        if self.lowered:
            hint = "memory is short: give more, lower maxLeasesForWorker, or set app.record_bytes"
            line |= {"level": "WARN", "message": f"maxRecords is lowered; {hint}"}
        return line


def chosen_heap(environ: Mapping[str, str], properties: Mapping[str, str] = {}) -> str | None:
    """The heap that the environment or the properties name, None where neither does. Raises ConfigError."""
    for name, given in ((HEAP_ENVIRONMENT, environ), (HEAP_PROPERTY, properties)):
        if size := given.get(name):
            if not _SIZE.fullmatch(size):
                what = f"{name} = {size!r} is not a size"
                raise ConfigError([Problem(what, "give digits and k, m or g, as in 512m")])
            return size
    return None


def size(
    properties: Mapping[str, str], environ: Mapping[str, str], *, shards: int | None, memory: int
) -> Sizing:
    """What fits a worker that may hold all of `shards` open shards (None: not known) in `memory` bytes.

    A heap that was chosen stays. Where the heap does not suffice for batches of maxRecords, these are lowered, not
    below twice what a shard accepts between two reads. Raises ConfigError.
    """
    count, record = _shards(properties, shards), _number(properties, environ)
    wanted = _property(properties, "maxRecords", _MOST_RECORDS)
    batch = batch_bytes(wanted, record)
    heap = chosen_heap(environ, properties)
    if heap is None:
        megabytes = min(-(-needed(count, batch) // MIB), memory // _SHARE // MIB)
        given = max(_LEAST_HEAP, megabytes * MIB)
        heap = f"{given // MIB}m"
    else:
        given = _bytes(heap)
    fits = largest_batch(given, count)
    if fits >= batch:
        return Sizing(heap, wanted, count, lowered=False)
    records = max(fits // ((record or _ASSUMED_RECORD) + _OBJECTS), _least_records(properties, record))
    return Sizing(heap, min(wanted, records), count, lowered=records < wanted)


def batch_bytes(max_records: int, record_bytes: int) -> int:
    """The most that one read takes in memory; `record_bytes` 0 means records of any size."""
    if not record_bytes:
        return _READ
    records = min(max_records, max(1, _READ // record_bytes))
    return min(records * (record_bytes + _OBJECTS), max(_READ, record_bytes))


def needed(shards: int, batch: int) -> int:
    """Bytes of heap for so many shards that catch up, with batches of `batch` bytes."""
    return _BASE + shards * (min(3 * batch, _PREFETCH + batch) + _COPIES * batch)


def largest_batch(heap: int, shards: int) -> int:
    """The most bytes of a batch for which a heap suffices (the inverse of `needed`)."""
    room = max(0, heap - _BASE) // shards
    small = room // (3 + _COPIES)
    return small if 3 * small <= _PREFETCH + small else (room - _PREFETCH) // (1 + _COPIES)


def after_out_of_memory(max_records: int) -> int:
    """The maxRecords of the next daemon."""
    return max(1, max_records // 8)


def memory_limit(root: Path = Path("/")) -> int:
    """Bytes that this process and its children may use: the machine's, or the container's limit if that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([total, *_limits(root)])


def _limits(root: Path) -> Iterator[int]:
    """Limits of the control groups (versions 2 and 1) that this process is in."""
    folders = {root / "sys/fs/cgroup", root / "sys/fs/cgroup/memory"}
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                top = root / "sys/fs/cgroup" / controllers
                inner = top / path.lstrip("/")
                folders |= {inner, *(parent for parent in inner.parents if parent.is_relative_to(top))}
    for folder in folders:
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):  # absent, or "max"
                yield int((folder / name).read_text())


def _shards(properties: Mapping[str, str], shards: int | None) -> int:
    leases = _property(properties, "maxLeasesForWorker", 0)
    if leases:
        return min(leases, shards or leases)
    return min(shards, _MOST_SHARDS) if shards else _ASSUMED_SHARDS


def _least_records(properties: Mapping[str, str], record_bytes: int) -> int:
    idle = _property(properties, "idleTimeBetweenReadsInMillis", 1_000) / 1_000
    each = min(_SHARD_RECORDS, _SHARD_BYTES // (record_bytes or _ASSUMED_RECORD))
    return max(1, int(2 * each * idle))


def _number(properties: Mapping[str, str], environ: Mapping[str, str]) -> int:
    text = environ.get(RECORD_ENVIRONMENT) or properties.get(RECORD_PROPERTY) or "0"
    if not text.isdecimal():
        raise ConfigError(
            [Problem(f"{RECORD_PROPERTY} = {text!r} is not a whole number", "give digits only")]
        )
    return int(text)


def _property(properties: Mapping[str, str], name: str, usual: int) -> int:
    text = properties.get(name, "")
    return int(text) if text.isdecimal() and int(text) else usual


def _bytes(heap: str) -> int:
    found = _SIZE.fullmatch(heap)
    assert found is not None
    return int(found[1]) * _UNITS[found[2].lower()]
