"""Pending records that nobody reads: whether a shard's consumer is behind, or there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from stream_app.aws.objects import head
from stream_app.model.segment import utc_datetime
from stream_app.recovery.audit.accepted import Accepted
from stream_app.recovery.audit.accounts import newest
from stream_app.recovery.audit.tally import ShardAudit, Waiting


@dataclass(frozen=True, slots=True)
class Limit:
    """How long records may be pending: those that arrived before `bound` (ms since the epoch) are overdue.

    `now` is the time of the audit.
    """

    pending_for: timedelta
    now: datetime

    @property
    def bound(self) -> int:
        """The arrival, in milliseconds since the epoch, before which a pending record is overdue."""
        return _milliseconds(self.now - self.pending_for)


def limit(pending_for: timedelta, now: datetime, known: Mapping[str, Accepted]) -> Limit:
    """The limit by this machine's clock, or by the newest arrival where the clock is behind that."""
    arrivals = [
        int(one.arrived.max()) for one in known.values() if one.arrived is not None and len(one.arrived)
    ]
    return Limit(pending_for, max([now, *map(utc_datetime, arrivals)]))


def described(
    shard: ShardAudit, allowed: Limit, stored_at: datetime | None, moved: bool | None
) -> ShardAudit:
    """The shard's audit with the sentence that tells whether somebody reads it, where records are overdue."""
    waiting = shard.waiting
    if waiting is None:
        return shard
    known = replace(waiting, stored_at=None if stored_at is None else _iso(stored_at), checkpoint_moved=moved)
    reading = moved or (stored_at is not None and allowed.now - stored_at <= allowed.pending_for)
    return replace(
        shard, waiting=replace(known, message=_message(shard.shard, known, allowed, bool(reading)))
    )


def last_stored(s3: Any, bucket: str, manifests: Sequence[str]) -> datetime | None:
    """When the newest of a shard's segments was stored. Raises what boto3 raises."""
    key = newest(manifests)
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
        f"nobody is reading shard {shard} since {since}: {pending}, the oldest arrived at {waiting.oldest}; "
        f"its checkpoint is {waiting.checkpoint}, {stored}"
    )


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def arrived_at(milliseconds: int) -> str:
    """An arrival as ISO 8601, UTC."""
    return _iso(utc_datetime(milliseconds))


def _milliseconds(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
