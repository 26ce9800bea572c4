"""Reads the stored event files of a shard, with a cache of listings and decoded rows."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from stream_app.aws import objects
from stream_app.model.record import IntVector, Position
from stream_app.model.segment import position_from_token, utc_datetime
from stream_app.pipeline.registry import Codec
from stream_app.recovery.correct.rewriting.segment import EventFile, Manifest, parse_manifest, read_file
from stream_app.sinks.parquet import stored_name
from stream_app.sinks.s3 import EVENTS, SEGMENTS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

K = TypeVar("K")
T = TypeVar("T")

_HOUR_MS = 3_600_000
# Size limit of the cache of decoded rows, in bytes of their columns.
_CACHE_BYTES = 128 << 20
_NO_STEP = np.iinfo(np.int64).min


class ListedFile(NamedTuple):
    """One event file in a listing.

    `order` and `first` are the position of its first row, as a sort key and as text.
    """

    order: tuple[int, int]
    first: str
    key: str
    etag: str


@dataclass(frozen=True, slots=True)
class FileRows:
    """The rows of one event file: schema fields, positions, and row indexes by device.

    `steps` are the rows' step numbers in the event's window, shape (n,); None without a window.
    """

    table: pa.Table
    devices: dict[str, IntVector]
    steps: IntVector | None

    def of(self, device: str) -> IntVector:
        """Return the device's rows in ascending order, which is the order of their positions."""
        return self.devices.get(device, _NO_ROWS)


_NO_ROWS: IntVector = np.zeros(0, dtype=np.int64)


def rows_of(table: pa.Table, codec: Codec) -> FileRows:
    """Return the rows of a file; empty where it lacks a field of the current schema."""
    names = stored_names(codec)
    if any(stored not in table.column_names for stored in names.values()):
        return FileRows(table.slice(0, 0), {}, None)
    kept = table.select([*dict.fromkeys((*names.values(), "sequence", "sub"))])
    window = codec.event.window
    steps = None if window is None else _steps(kept[names[window.time]], window.step)
    return FileRows(kept, _by_device(kept[names[codec.event.key]]), steps)


def stored_names(codec: Codec) -> dict[str, str]:
    """Return the schema's fields and the columns that hold them."""
    return {each.name: stored_name(each.name, codec.event.name) for each in codec.schema.fields}


def _by_device(keys: pa.ChunkedArray) -> dict[str, IntVector]:
    encoded = keys.combine_chunks().dictionary_encode(null_encoding="encode")
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    order = np.argsort(codes, kind="stable")
    names = [str(name) for name in encoded.dictionary.to_pylist()]
    ends = np.searchsorted(codes[order], np.arange(len(names) + 1))
    return {name: order[ends[at] : ends[at + 1]] for at, name in enumerate(names)}


def _steps(times: pa.ChunkedArray, step: timedelta) -> IntVector:
    ticks = times.combine_chunks().cast(pa.timestamp("us", times.type.tz), safe=False).cast(pa.int64())
    found: IntVector = ticks.fill_null(_NO_STEP).to_numpy(zero_copy_only=False) // (
        step // timedelta(microseconds=1)
    )
    return found


class RowsCache:
    """A thread-safe LRU cache of decoded rows by key and ETag."""

    def __init__(self, max_bytes: int = _CACHE_BYTES) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._rows: OrderedDict[tuple[str, str], FileRows] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, etag: str) -> FileRows | None:
        """Return the rows of that version of the file, None where they are not cached."""
        with self._lock:
            found = self._rows.get((key, etag))
            if found is not None:
                self._rows.move_to_end((key, etag))
            return found

    def put(self, key: str, etag: str, rows: FileRows) -> None:
        """Cache rows; evict the least recently used ones above the size limit."""
        with self._lock:
            old = self._rows.pop((key, etag), None)
            self._bytes += rows.table.nbytes - (0 if old is None else old.table.nbytes)
            self._rows[key, etag] = rows
            while self._bytes > self._max_bytes and len(self._rows) > 1:
                _, dropped = self._rows.popitem(last=False)
                self._bytes -= dropped.table.nbytes


@dataclass(frozen=True, slots=True)
class EventFiles:
    """The event files of a bucket during one batch of corrections.

    Each hour of a shard is listed at most once; files that are stored after that are not seen. Threads may share
    it.
    """

    s3: S3Client
    bucket: str
    cache: RowsCache
    _hours: dict[tuple[str, str, int], list[ListedFile]] = field(default_factory=dict)
    _manifests: dict[str, Manifest | None] = field(default_factory=dict)

    def find(self, consumer: str, event: str, position: Position, arrived: int) -> Manifest | None:
        """Return the manifest that covers a position, None while there is none.

        Lists three hours of one shard's files. A segment is named after a record that arrived in the same hour or
        in the one before; arrival times may go back a little, so the hour after is listed as well.
        """
        hours = [arrived + offset * _HOUR_MS for offset in (1, 0, -1)]
        for stored in (one for at in hours for one in self._list_hour(event, position.shard, at)):
            if stored.order <= position.order:
                found = self._manifest(f"{SEGMENTS}{consumer}/{position.shard}/{stored.first}.json")
                if found is None or position_from_token("", found.last.position).order < position.order:
                    return None
                return found
        return None

    def earlier(self, event: str, position: Position, arrived: int, hours: int) -> Iterator[ListedFile]:
        """Yield the shard's files that begin before a position, the latest first.

        Searches `hours` hours back and one hour ahead.
        """
        for back in range(-1, hours + 1):
            for stored in self._list_hour(event, position.shard, arrived - back * _HOUR_MS):
                if stored.order < position.order:
                    yield stored

    def later(self, event: str, position: Position, arrived: int, hours: int) -> Iterator[ListedFile]:
        """Yield the shard's files that begin after a position, in order.

        Searches `hours` hours ahead and one hour back.
        """
        for ahead in range(-1, hours + 1):
            for stored in reversed(self._list_hour(event, position.shard, arrived + ahead * _HOUR_MS)):
                if stored.order > position.order:
                    yield stored

    def rows(self, stored: ListedFile, codec: Codec) -> FileRows | None:
        """Return the rows of a listed file, None when it no longer exists.

        Raises what boto3 and Arrow raise.
        """
        found = self.cache.get(stored.key, stored.etag)
        if found is None:
            file = read_file(
                self.s3, self.bucket, stored.key, [*stored_names(codec).values(), "sequence", "sub"]
            )
            found = None if file is None else self.cache_rows(file, codec)
        return found

    def cache_rows(self, file: EventFile, codec: Codec) -> FileRows:
        """Decode and cache the rows of a file that was read or written."""
        found = self.cache.get(file.key, file.etag)
        if found is None:
            found = rows_of(file.table, codec)
            self.cache.put(file.key, file.etag, found)
        return found

    def update_listing(self, file: EventFile, codec: Codec) -> None:
        """Record a file's new version in its listing."""
        self.cache_rows(file, codec)
        for listed in list(self._hours.values()):
            for at, stored in enumerate(listed):
                if stored.key == file.key:
                    listed[at] = stored._replace(etag=file.etag)

    def _list_hour(self, event: str, shard: str, milliseconds: int) -> list[ListedFile]:
        """Return the files of one hour, the latest first."""
        name = (event, shard, milliseconds // _HOUR_MS)
        return _get_or_load(
            self._hours, name, lambda: _list_files(self.s3, self.bucket, event, shard, milliseconds)
        )

    def _manifest(self, key: str) -> Manifest | None:
        def load() -> Manifest | None:
            body = objects.get(self.s3, self.bucket, key)
            return None if body is None else parse_manifest(body)

        return _get_or_load(self._manifests, key, load)


def _get_or_load(known: dict[K, T], name: K, load: Callable[[], T]) -> T:
    """Return the cached value, or load it; two threads may load the same value at once."""
    if name not in known:
        known[name] = load()
    return known[name]


def _list_files(s3: S3Client, bucket: str, event: str, shard: str, milliseconds: int) -> list[ListedFile]:
    at, found = utc_datetime(milliseconds), []
    prefix = f"{EVENTS}{event}/date={at:%Y-%m-%d}/hour={at:%H}/{shard}-"
    for key, etag in objects.etags(s3, bucket, prefix):
        first = key.removeprefix(prefix).removesuffix(".parquet")
        try:
            found.append(ListedFile(position_from_token("", first).order, first, key, etag))
        except ValueError:
            continue  # not an event file of this application
    return sorted(found, reverse=True)
