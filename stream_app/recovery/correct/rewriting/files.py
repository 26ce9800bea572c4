"""The stored event files of a shard, as corrections read them: listed once a batch, decoded once an ETag."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from stream_app.aws import objects
from stream_app.model.record import IntVector, Position
from stream_app.model.segment import position_from_token, utc_datetime
from stream_app.pipeline.registry import Codec
from stream_app.recovery.correct.rewriting.segment import File, Manifest, parse, read
from stream_app.sinks.parquet import stored_name
from stream_app.sinks.s3 import EVENTS, SEGMENTS

K = TypeVar("K")
T = TypeVar("T")

_HOUR_MS = 3_600_000
# Decoded rows that are kept between batches, in bytes of their columns.
_KEPT_BYTES = 128 << 20
_NEVER = np.iinfo(np.int64).min


class Stored(NamedTuple):
    """One event file in a listing: the position of its first row, as order and as text, its key and its ETag."""

    order: tuple[int, int]
    first: str
    key: str
    etag: str


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one event file: the schema's fields, positions, and which rows are of which device.

    `steps` are the rows' places on the grid of the event's window, shape (n,); None without a window.
    """

    table: pa.Table
    devices: dict[str, IntVector]
    steps: IntVector | None

    def of(self, device: str) -> IntVector:
        """The device's rows, ascending, which is the order of their positions."""
        return self.devices.get(device, _NO_ROWS)


_NO_ROWS: IntVector = np.zeros(0, dtype=np.int64)


def rows_of(table: pa.Table, codec: Codec) -> Rows:
    """The rows of a file; none where it lacks a field of today's schema."""
    names = stored_names(codec)
    if any(stored not in table.column_names for stored in names.values()):
        return Rows(table.slice(0, 0), {}, None)
    kept = table.select([*dict.fromkeys((*names.values(), "sequence", "sub"))])
    window = codec.event.window
    steps = None if window is None else _steps(kept[names[window.time]], window.step)
    return Rows(kept, _by_device(kept[names[codec.event.key]]), steps)


def stored_names(codec: Codec) -> dict[str, str]:
    """The schema's fields, and the columns that hold them."""
    return {each.name: stored_name(each.name, codec.event.name) for each in codec.schema.fields}


def _by_device(keys: Any) -> dict[str, IntVector]:
    encoded = keys.combine_chunks().dictionary_encode(null_encoding="encode")
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    order = np.argsort(codes, kind="stable")
    names = [str(name) for name in encoded.dictionary.to_pylist()]
    ends = np.searchsorted(codes[order], np.arange(len(names) + 1))
    return {name: order[ends[at] : ends[at + 1]] for at, name in enumerate(names)}


def _steps(times: Any, step: timedelta) -> IntVector:
    ticks = times.combine_chunks().cast(pa.timestamp("us", times.type.tz), safe=False).cast(pa.int64())
    found: IntVector = ticks.fill_null(_NEVER).to_numpy(zero_copy_only=False) // (
        step // timedelta(microseconds=1)
    )
    return found


class RowsCache:
    """Decoded rows by key and ETag, the least recently used dropped first. Threads may share it."""

    def __init__(self, most_bytes: int = _KEPT_BYTES) -> None:
        self._most, self._bytes = most_bytes, 0
        self._rows: OrderedDict[tuple[str, str], Rows] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, etag: str) -> Rows | None:
        """The rows of that version of the file, None where they are not kept."""
        with self._lock:
            found = self._rows.get((key, etag))
            if found is not None:
                self._rows.move_to_end((key, etag))
            return found

    def put(self, key: str, etag: str, rows: Rows) -> None:
        """Keep rows."""
        with self._lock:
            old = self._rows.pop((key, etag), None)
            self._bytes += rows.table.nbytes - (0 if old is None else old.table.nbytes)
            self._rows[key, etag] = rows
            while self._bytes > self._most and len(self._rows) > 1:
                _, dropped = self._rows.popitem(last=False)
                self._bytes -= dropped.table.nbytes


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a bucket during one batch of corrections: each hour of a shard is listed at most once.

    What is stored after its hour was listed is not seen. Threads may share it.
    """

    s3: Any
    bucket: str
    cache: RowsCache
    _hours: dict[tuple[str, str, int], list[Stored]] = field(default_factory=dict)
    _manifests: dict[str, Manifest | None] = field(default_factory=dict)

    def find(self, consumer: str, event: str, position: Position, arrived: int) -> Manifest | None:
        """The manifest that covers a position, None while there is none. Lists three hours of one shard's files.

        Its segment is named after a record that arrived in the same hour or the one before; arrival times may go
        back a little, so the hour after is looked at as well.
        """
        hours = [arrived + offset * _HOUR_MS for offset in (1, 0, -1)]
        for stored in (one for at in hours for one in self._hour(event, position.shard, at)):
            if stored.order <= position.order:
                found = self._manifest(f"{SEGMENTS}{consumer}/{position.shard}/{stored.first}.json")
                if found is None or position_from_token("", found.last.position).order < position.order:
                    return None
                return found
        return None

    def earlier(self, event: str, position: Position, arrived: int, hours: int) -> Iterator[Stored]:
        """The shard's files that begin before a position, the latest first, over so many hours and one more."""
        for back in range(-1, hours + 1):
            for stored in self._hour(event, position.shard, arrived - back * _HOUR_MS):
                if stored.order < position.order:
                    yield stored

    def later(self, event: str, position: Position, arrived: int, hours: int) -> Iterator[Stored]:
        """The shard's files that begin after a position, in order, over so many hours and one before."""
        for on in range(-1, hours + 1):
            for stored in reversed(self._hour(event, position.shard, arrived + on * _HOUR_MS)):
                if stored.order > position.order:
                    yield stored

    def rows(self, stored: Stored, codec: Codec) -> Rows | None:
        """The rows of a listed file, None when it is gone. Raises what boto3 and Arrow raise."""
        found = self.cache.get(stored.key, stored.etag)
        if found is None:
            file = read(self.s3, self.bucket, stored.key, [*stored_names(codec).values(), "sequence", "sub"])
            found = None if file is None else self.keep(file, codec)
        return found

    def keep(self, file: File, codec: Codec) -> Rows:
        """The rows of a file that was read or written, kept for the corrections to come."""
        found = self.cache.get(file.key, file.etag)
        if found is None:
            found = rows_of(file.table, codec)
            self.cache.put(file.key, file.etag, found)
        return found

    def replaced(self, file: File, codec: Codec) -> None:
        """Take note of a file's new version in its listing."""
        self.keep(file, codec)
        for listed in list(self._hours.values()):
            for at, stored in enumerate(listed):
                if stored.key == file.key:
                    listed[at] = stored._replace(etag=file.etag)

    def _hour(self, event: str, shard: str, milliseconds: int) -> list[Stored]:
        """The files of one hour, the latest first."""
        name = (event, shard, milliseconds // _HOUR_MS)
        return _once(self._hours, name, lambda: _listed(self.s3, self.bucket, event, shard, milliseconds))

    def _manifest(self, key: str) -> Manifest | None:
        def load() -> Manifest | None:
            body = objects.get(self.s3, self.bucket, key)
            return None if body is None else parse(body)

        return _once(self._manifests, key, load)


def _once(known: dict[K, T], name: K, load: Callable[[], T]) -> T:
    """What is known, or else loaded; two threads at once may both load it."""
    if name not in known:
        known[name] = load()
    return known[name]


def _listed(s3: Any, bucket: str, event: str, shard: str, milliseconds: int) -> list[Stored]:
    at, found = utc_datetime(milliseconds), []
    prefix = f"{EVENTS}{event}/date={at:%Y-%m-%d}/hour={at:%H}/{shard}-"
    for key, etag in objects.etags(s3, bucket, prefix):
        first = key.removeprefix(prefix).removesuffix(".parquet")
        try:
            found.append(Stored(position_from_token("", first).order, first, key, etag))
        except ValueError:
            continue  # a file that is not ours
    return sorted(found, reverse=True)
