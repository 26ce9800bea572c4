"""The outcomes of raw record bytes, stored, parked or repeated, as the consumer of a shard decides them."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import pyarrow.parquet as pq

from stream_app.consumer.alerting.alerts import NoAlerts
from stream_app.consumer.dependencies import ShardDependencies
from stream_app.consumer.shard import ShardConsumer
from stream_app.consumer.snapshots import Lineage
from stream_app.event_loading import load_registry, schema_files
from stream_app.model.event import Event
from stream_app.model.record import Batch, Failure, Record
from stream_app.model.segment import Segment
from stream_app.pipeline.registry import Registry
from stream_app.settings import Settings
from stream_app.sinks.columns import column_types
from stream_app.sinks.parquet import IDENTITY, encode, field_name, to_table
from stream_app.testing.records import record

T = TypeVar("T")
Outcome = dict[str, Any]
"""An outcome as a JSON object, see `outcomes`."""
_SHARD = "shardId-000000000000"
_WHOLE_RANGE = Lineage((), 0, 2**128 - 1)


def outcomes(
    payloads: Sequence[bytes],
    *,
    event: Event | None = None,
    schemas: Sequence[Mapping[str, Any]] | None = None,
    splits: Sequence[int] | None = None,
    arrived: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> list[list[Outcome]]:
    """Return for each record's bytes the outcomes of its items in order. A record has one item.

    The records are consecutive records of one shard without earlier state. They are processed as in production, by
    the consumer of a shard, and read back from a Parquet file. An outcome is one of

    - `{"status": "stored", "event": …, "values": {…}}`, the values by field and calculated column;
    - `{"status": "parked", "code": …, "stage": …, "reason": …}`;
    - `{"status": "repeated"}`.

    `event` is the only declared event type, and `schemas` are the versions of its schema, the current one first (by
    default the files in `schemas/`); without `event` all types are declared that the consumer would discover.
    `splits` are the sizes of the batches in which the records are delivered; those left over come in one more batch.
    They do not change the outcomes. `arrived` is the arrival time of all records in milliseconds
    since the epoch (default: now), `settings` are further fields of `Settings`. Raises ConfigError when event and
    schema disagree.

    >>> from stream_app.events.parcel import EVENT
    >>> outcomes([b"[1, 2]"], event=EVENT)[0][0]["code"]
    'UNDECODABLE'
    """
    registry = _registry(event, schemas)
    stored = _ReadBack(registry)
    consumer = ShardConsumer(_dependencies(registry, stored, dict(settings or {})))
    at = time.time_ns() // 1_000_000 if arrived is None else arrived
    records = [record(bytes(data), number, arrived=at) for number, data in enumerate(payloads)]
    consumer.initialize(_SHARD, "TRIM_HORIZON", 0)
    for batch in _batches(records, splits or ()):
        consumer.process(batch, 0, _Checkpoints())
    consumer.shard_ended(_Checkpoints())
    return [[found] for found in stored.found]


def _registry(event: Event | None, schemas: Sequence[Mapping[str, Any]] | None) -> Registry:
    if event is None:
        if schemas is not None:
            raise ValueError("schemas are given without the event that they belong to")
        return load_registry()
    given = schemas or [json.loads(path.read_text(encoding="utf-8")) for path in schema_files(event.name)]
    return Registry.of([event], {event.name: [dict(schema) for schema in given]})


def _batches(records: Sequence[Record], sizes: Sequence[int]) -> Iterator[Sequence[Record]]:
    start = 0
    for size in sizes:
        yield records[start : start + size]
        start += size
    if start < len(records):
        yield records[start:]


class _ReadBack:
    """A sink that writes each segment as Parquet, reads it back, and records the outcome of every row."""

    def __init__(self, registry: Registry) -> None:
        schemas = {name: codec.schema for name, codec in registry.codecs.items()}
        self._types = {name: column_types(schema.fields) for name, schema in schemas.items()}
        self._fields = {name: {field.name for field in schema.fields} for name, schema in schemas.items()}
        self.found: list[Outcome] = []

    def write(self, segment: Segment) -> Sequence[Failure]:
        """Return the rows that Parquet cannot store, as `ParquetSink` does."""
        rows: dict[int, Outcome] = {row: {"status": "repeated"} for row in segment.repeated.tolist()}
        refused: list[Failure] = []
        for batch in segment.passed.values():
            values, bad = self._values(batch, segment)
            rows |= {
                row: {"status": "stored", "event": batch.event, "values": v} for row, v in values.items()
            }
            refused += bad
        for failure in (*segment.failed, *refused):
            rows[failure.row] = {
                "status": "parked",
                "code": str(failure.code),
                "stage": failure.stage,
                "reason": failure.reason,
            }
        self.found += [rows[row] for row in range(len(segment.records))]
        return refused

    def _values(self, batch: Batch, segment: Segment) -> tuple[dict[int, Outcome], list[Failure]]:
        table, refused = to_table(batch, segment.records, segment.shard, self._types[batch.event])
        read = pq.read_table(io.BytesIO(encode(table, {"event": batch.event})))
        names = [name for name in read.column_names if name not in IDENTITY]
        fields = [field_name(name, batch.event, self._fields[batch.event]) for name in names]
        bad = {failure.row for failure in refused}
        kept = [row for row in batch.rows.tolist() if row not in bad]
        columns = [read[name].to_pylist() for name in names]
        values = [dict(zip(fields, row, strict=True)) for row in zip(*columns, strict=True)]
        return dict(zip(kept, values, strict=True)), refused

    def close(self) -> None:
        """Do nothing."""


class _Checkpoints:
    def checkpoint(self, sequence: str | None, sub: int | None) -> None:
        pass


class _NoSnapshots:
    def load(self, shard: str, name: str) -> bytes | None:
        return None

    def save(self, shard: str, name: str, snapshot: bytes) -> None:
        pass

    def forget(self, shard: str, name: str) -> None:
        pass


def _dependencies(registry: Registry, sink: _ReadBack, settings: Mapping[str, Any]) -> ShardDependencies:
    def attempt(what: str, action: Callable[[], T], /) -> T:
        return action()

    return ShardDependencies(
        registry=registry,
        settings=Settings(**{"application": "testing", "stream": "testing", **settings}),
        sinks=[sink],
        park=lambda _segment: None,
        alerts=NoAlerts(),
        snapshots=_NoSnapshots(),
        lineage=lambda _shard: _WHOLE_RANGE,
        attempt=attempt,
        report=lambda _summary: None,
        note=lambda _event, **_fields: None,
        now_ms=lambda: time.time_ns() // 1_000_000,
    )
