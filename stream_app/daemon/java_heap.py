"""Heap size and maxRecords of the daemon, computed from shards, record size and available memory.

KCL prefetches three batches or 8 MiB of each shard, whichever is reached first, and then one more batch. The memory
of a batch of 10 MiB (the maximum of a read) while it is received and written to the child process was measured with
`python -m tests.bench.heap`.
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
_COPIES = 8  # of a batch: the response, its records, and their JSON text while it is built and written
_OBJECTS = 512  # bytes of the Java objects of a record, besides its data
_LEAST_HEAP = 256 * MIB
_SHARE = 2  # the heap takes one half of the memory, and the shard processes the other
_ASSUMED_SHARDS, _MOST_SHARDS = 4, 64
_ASSUMED_RECORD = 1_024
_MOST_RECORDS = 10_000
_SHARD_RECORDS, _SHARD_BYTES = 1_000, MIB  # write limits of a shard per second
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_SIZE = re.compile(r"([0-9]+)([kKmMgG])")


class Sizing(NamedTuple):
    """The heap in the format of `-Xmx`, maxRecords of the daemon, and the number of shards they are computed for."""

    heap: str
    max_records: int
    shards: int
    lowered: bool

    def log_fields(self) -> dict[str, object]:
        """Return the fields of a log line, with a warning if maxRecords was lowered."""
        line: dict[str, object] = {"heap": self.heap, "max_records": self.max_records, "shards": self.shards}
        if self.lowered:
            hint = "add memory, lower maxLeasesForWorker, or set app.record_bytes"
            line |= {"level": "WARN", "message": f"maxRecords was lowered to fit the memory; {hint}"}
        return line


def chosen_heap(environ: Mapping[str, str], properties: Mapping[str, str] = {}) -> str | None:
    """Return the heap size set by the environment or the properties, None if unset. Raises ConfigError."""
    for name, given in ((HEAP_ENVIRONMENT, environ), (HEAP_PROPERTY, properties)):
        if size := given.get(name):
            if not _SIZE.fullmatch(size):
                what = f"{name} = {size!r} is not a size"
                raise ConfigError([Problem(what, "give digits and k, m or g, such as 512m")])
            return size
    return None


def size(
    properties: Mapping[str, str], environ: Mapping[str, str], *, shards: int | None, memory: int
) -> Sizing:
    """Compute the sizes for a worker that may hold all `shards` open shards (None for unknown) in `memory` bytes.

    A configured heap is kept. If the heap is too small for batches of maxRecords, maxRecords is lowered, but not
    below twice the number of records that a shard accepts between two reads. Raises ConfigError.
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
    """Return the maximum memory of one read in bytes; `record_bytes` 0 means records of any size."""
    if not record_bytes:
        return _READ
    records = min(max_records, max(1, _READ // record_bytes))
    return min(records * (record_bytes + _OBJECTS), max(_READ, record_bytes))


def needed(shards: int, batch: int) -> int:
    """Return the heap in bytes for this number of shards that are behind, with batches of `batch` bytes."""
    return _BASE + shards * (min(3 * batch, _PREFETCH + batch) + _COPIES * batch)


def largest_batch(heap: int, shards: int) -> int:
    """Return the largest batch in bytes for which a heap suffices (the inverse of `needed`)."""
    available = max(0, heap - _BASE) // shards
    small = available // (3 + _COPIES)
    return small if 3 * small <= _PREFETCH + small else (available - _PREFETCH) // (1 + _COPIES)


def after_out_of_memory(max_records: int) -> int:
    """Return maxRecords for the next start after a daemon ran out of memory."""
    return max(1, max_records // 8)


def memory_limit(root: Path = Path("/")) -> int:
    """Return the memory limit in bytes of this process and its children: of the host or of the container."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([total, *_limits(root)])


def _limits(root: Path) -> Iterator[int]:
    """Yield the memory limits of the control groups (versions 2 and 1) of this process."""
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
