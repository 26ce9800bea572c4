"""Explains overdue records: the consumer of their shard is behind, or is not running."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from stream_app.aws.objects import head
from stream_app.model.segment import utc_datetime
from stream_app.recovery.audit.accepted import Accepted
from stream_app.recovery.audit.accounts import newest_manifest
from stream_app.recovery.audit.tally import ShardAudit, Waiting

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True, slots=True)
class OverdueCheck:
    """Options of the check for overdue records.

    Records that have been pending for longer than `pending_for` at `now` (default: the clock) are overdue.
    `checkpoints_after` reads the checkpoints again, to distinguish a slow consumer from a stopped one.
    """

    pending_for: timedelta
    now: datetime | None = None
    checkpoints_after: Callable[[], Mapping[str, str]] | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """How long records may be pending: those that arrived before `bound` are overdue.

    `now` is the time of the audit.
    """

    pending_for: timedelta
    now: datetime

    @property
    def bound(self) -> int:
        """The arrival, in milliseconds since the epoch, before which a pending record is overdue."""
        return _milliseconds(self.now - self.pending_for)


def overdue_limit(pending_for: timedelta, now: datetime, known: Mapping[str, Accepted]) -> Limit:
    """Return the limit by the local clock, or by the newest arrival where the clock is behind it."""
    arrivals = [
        int(one.arrived.max()) for one in known.values() if one.arrived is not None and len(one.arrived)
    ]
    return Limit(pending_for, max([now, *map(utc_datetime, arrivals)]))


def with_explanation(
    shard: ShardAudit, allowed: Limit, stored_at: datetime | None, moved: bool | None
) -> ShardAudit:
    """Return the shard's audit with the message that explains its overdue records."""
    waiting = shard.waiting
    if waiting is None:
        return shard
    known = replace(waiting, stored_at=None if stored_at is None else _iso(stored_at), checkpoint_moved=moved)
    reading = moved or (stored_at is not None and allowed.now - stored_at <= allowed.pending_for)
    return replace(
        shard, waiting=replace(known, message=_message(shard.shard, known, allowed, bool(reading)))
    )


def last_stored(s3: S3Client, bucket: str, manifests: Sequence[str]) -> datetime | None:
    """Return when the newest segment of a shard was stored. Raises what boto3 raises."""
    key = newest_manifest(manifests)
    found = head(s3, bucket, key) if key is not None else None
    return None if found is None else found["LastModified"].astimezone(UTC)


def _message(shard: str, waiting: Waiting, allowed: Limit, reading: bool) -> str:
    seconds = allowed.pending_for.total_seconds()
    records = f"{waiting.records:,} record{'s have' if waiting.records != 1 else ' has'}"
    pending = f"{records} been pending for longer than {seconds:,.0f} s"
    stored = (
        f"the last segment was stored at {waiting.stored_at}"
        if waiting.stored_at
        else "no segment was stored"
    )
    if reading:
        moved = "its checkpoint moved during this audit" if waiting.checkpoint_moved else stored
        return f"the consumer of shard {shard} is behind: {pending}, the oldest arrived at {waiting.oldest}; {moved}"
    since = max(waiting.oldest, waiting.stored_at or "")
    return (
        f"no consumer has read shard {shard} since {since}: {pending}, the oldest arrived at {waiting.oldest}; "
        f"its checkpoint is {waiting.checkpoint}, {stored}"
    )


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def arrived_at(milliseconds: int) -> str:
    """Return an arrival as ISO 8601, UTC."""
    return _iso(utc_datetime(milliseconds))


def _milliseconds(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
