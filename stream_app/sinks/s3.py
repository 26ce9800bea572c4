"""Stores segments as Parquet files on S3, with a manifest of the outcome of every record."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

import msgspec

from stream_app.aws.objects import put_exact
from stream_app.model.record import Failure
from stream_app.model.segment import Segment, token
from stream_app.sinks.columns import Types
from stream_app.sinks.parquet import encode, rows_digest, to_table

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Manifest = dict[str, Any]
"""A manifest as a JSON object, see `manifest`."""
EVENTS = "events/"
SEGMENTS = "segments/"
MANIFEST_KIND = "stream-app.segment"
_PARQUET = "application/vnd.apache.parquet"


def event_key(segment: Segment, event: str) -> str:
    """Return the key of an event type's rows: `events/<event>/date=…/hour=…/<name>.parquet` (UTC)."""
    arrival = segment.arrival
    return f"{EVENTS}{event}/date={arrival:%Y-%m-%d}/hour={arrival:%H}/{segment.name}.parquet"


def manifest_key(segment: Segment) -> str:
    """Return the key of the segment's manifest: `segments/<consumer>/<shard>/<first position>.json`."""
    return f"{SEGMENTS}{segment.consumer}/{segment.shard}/{token(segment.first)}.json"


def manifest(segment: Segment) -> Manifest:
    """Return the outcome of every record of the segment. It depends on the segment alone, not on a clock.

    Positions are texts as of `segment.token`; `arrived` is in milliseconds since the epoch.
    """
    parked: defaultdict[str, list[str]] = defaultdict(list)
    for failure, name in zip(segment.failed, segment.tokens(f.row for f in segment.failed), strict=True):
        parked[failure.code].append(name)
    stored = {
        event: {"count": len(batch), "key": event_key(segment, event)}
        for event, batch in segment.passed.items()
    }
    return {
        "kind": MANIFEST_KIND,
        "version": 1,
        "consumer": segment.consumer,
        "stream": segment.stream,
        "shard": segment.shard,
        "first": {"position": token(segment.first), "arrived": segment.records[0].arrived},
        "last": {"position": token(segment.last), "arrived": segment.records[-1].arrived},
        "count": len(segment.records),
        "stored": {event: stored[event] for event in sorted(stored)},
        "anomalies": sum(int(b["anomaly"].sum()) for b in segment.passed.values() if "anomaly" in b),
        "repeated": segment.tokens(segment.repeated.tolist()),
        "parked": {str(code): parked[code] for code in sorted(parked)},
    }


@dataclass(frozen=True, slots=True)
class ParquetSink:
    """Stores the accepted rows in one file for each event type, by the conditional writes of `put_exact`.

    `fingerprints` are those of the schemas by event name, `types` the Arrow types of object columns (`column_types`).
    """

    s3: S3Client
    bucket: str
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, Types] = field(default_factory=dict)

    def write(self, segment: Segment) -> Sequence[Failure]:
        """Store each event's rows. Raises the errors of boto3, and TransientError if other writers interfere."""
        return [failure for event in sorted(segment.passed) for failure in self._write(segment, event)]

    def close(self) -> None:
        """Do nothing."""

    def build(self, segment: Segment) -> None:
        """Create the files without storing them (protocol `segment.PrebuildingSink`)."""
        for event in segment.passed:
            self._file(segment, event)

    def _write(self, segment: Segment, event: str) -> Sequence[Failure]:
        body, digest, refused = self._file(segment, event)
        if body:
            put_exact(
                self.s3,
                bucket=self.bucket,
                key=event_key(segment, event),
                body=body,
                digest=digest,
                content_type=_PARQUET,
                **_extent(segment),
            )
        return refused

    def _file(self, segment: Segment, event: str) -> tuple[bytes, str, Sequence[Failure]]:
        """Return the file of an event's rows and its digest, empty without rows, and the rejected rows."""
        batch = segment.passed[event]
        table, refused = to_table(batch, segment.records, segment.shard, self.types.get(event, {}))
        if not len(table):
            return b"", "", refused
        metadata = {"event": event, "consumer": segment.consumer, "stream": segment.stream}
        if event in self.fingerprints:
            metadata["schema"] = self.fingerprints[event]
        return encode(table, metadata), rows_digest(table), refused


@dataclass(frozen=True, slots=True)
class ManifestSink:
    """Stores the segment's manifest. It must be the last sink, because the manifest lists what is stored."""

    s3: S3Client
    bucket: str

    def build(self, segment: Segment) -> None:
        """Create the manifest without storing it (protocol `segment.PrebuildingSink`)."""
        msgspec.json.encode(manifest(segment))

    def write(self, segment: Segment) -> Sequence[Failure]:
        """Store the manifest by `put_exact`; no row is rejected."""
        body = msgspec.json.encode(manifest(segment))
        put_exact(
            self.s3,
            bucket=self.bucket,
            key=manifest_key(segment),
            body=body,
            digest=hashlib.sha256(body).hexdigest(),
            content_type="application/json",
            **_extent(segment),
        )
        return ()

    def close(self) -> None:
        """Do nothing."""


class _Extent(TypedDict):
    records: int
    may_shrink: bool


def _extent(segment: Segment) -> _Extent:
    """Return which objects the segment may replace.

    A worker that was suspended and lost its lease may close a segment by the clock that another worker has continued.
    """
    return {"records": len(segment.records), "may_shrink": not segment.by_clock}
