"""Checks that every record that Kinesis accepted is accounted for exactly once."""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stream_app.model.record import IntVector, Mask
from stream_app.model.segment import position_from_token
from stream_app.recovery.audit.accepted import Accepted, Progress, Tokens, accepted
from stream_app.recovery.audit.accounts import Accounts, Kind, accounts, stray_accounts
from stream_app.recovery.audit.inventory import NO_SHARD, Files, inventory
from stream_app.recovery.audit.tally import MAX_POSITIONS, Audit, Duplicate, ShardAudit, Tally, Waiting
from stream_app.recovery.audit.waiting import (
    Limit,
    OverdueCheck,
    arrived_at,
    last_stored,
    overdue_limit,
    with_explanation,
)
from stream_app.recovery.stream.read import shards

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_s3 import S3Client

__all__ = ["Audit", "Duplicate", "ShardAudit", "Tally", "Waiting", "audit", "compare_shard"]

_THREADS = 8
_NOTHING_DONE = frozenset({"TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"})
_ALL_DONE = "SHARD_END"
_NO_ACCOUNT = len(Kind)


def audit(
    *,
    kinesis: KinesisClient,
    s3: S3Client,
    stream: str,
    bucket: str,
    consumer: str,
    checkpoints: Mapping[str, str] | None,
    progress: Progress | None = None,
    overdue: OverdueCheck | None = None,
) -> Audit:
    """Compare every position in the stream with the positions that the bucket accounts for.

    `checkpoints` holds each shard's checkpoint: a position's token (`segment.token`) or one of KCL's sentinels.
    Read them before the call, so that everything before them is certainly stored. Without them, nothing is
    pending. The stream is read first, and records that arrive later are ignored. Calls `progress` with the shard
    and the number of positions read. Without `overdue`, no record is overdue. Needs about 70 bytes of memory per
    position. Raises what boto3 raises.
    """
    known = {shard.id: accepted(kinesis, stream, shard, progress) for shard in shards(kinesis, stream)}
    allowed = None
    if overdue is not None:
        allowed = overdue_limit(overdue.pending_for, overdue.now or datetime.now(UTC), known)
    oldest = min((one.oldest for one in known.values() if one.oldest), default=None)
    files = inventory(s3, bucket, consumer, oldest)
    origin = (consumer, stream)
    strays, unreadable = stray_accounts(s3, bucket, origin, files.pop(NO_SHARD, Files()).events)
    found: list[ShardAudit] = []
    stored_at: dict[str, datetime | None] = {}
    with ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="audit") as threads:
        for shard in sorted({*known, *files, *strays}):
            # Popped, so that no more than one shard's accounts are held at a time.
            here = known.pop(shard, None) or Accepted.nothing(shard)
            first = here.tokens[0].as_py() if len(here.tokens) else None
            of_shard = files.pop(shard, Files())
            told = accounts(s3, bucket, origin, of_shard, strays.pop(shard, ()), first, threads)
            unreadable += told.unreadable
            done = None if checkpoints is None else checkpoints.get(shard, "TRIM_HORIZON")
            found.append(compare_shard(here, told, done, allowed))
            if found[-1].waiting is not None:
                stored_at[shard] = last_stored(s3, bucket, of_shard.manifests)
    if overdue is not None and allowed is not None and stored_at:
        after = None if overdue.checkpoints_after is None else overdue.checkpoints_after()
        found = [_described(one, allowed, stored_at.get(one.shard), after) for one in found]
    return Audit(stream, consumer, tuple(found), tuple(unreadable))


def compare_shard(
    here: Accepted, told: Accounts, checkpoint: str | None, allowed: Limit | None = None
) -> ShardAudit:
    """Compare one shard's accepted positions with their accounts.

    Without a checkpoint, every position must be accounted for; without `allowed`, none is overdue.
    """
    joined = _join(here.tokens, told)
    kinds = np.full(len(here.tokens), _NO_ACCOUNT, dtype=np.int64)
    inside = joined.at >= 0
    kinds[joined.at[inside]] = joined.kind[inside]
    dropped, missing, pending, overdue = _unaccounted(here, kinds == _NO_ACCOUNT, checkpoint, allowed)
    lost: list[str] = here.tokens.take(pa.array(missing)).to_pylist()
    trimmed, unknown = _outside(here.tokens, joined)
    doubled = np.flatnonzero(joined.times > 1)
    count = Tally(
        accepted=len(kinds),
        stored=int((kinds == Kind.STORED).sum()),
        repeated=int((kinds == Kind.REPEATED).sum()),
        parked=_parked(told, joined),
        pending=len(pending),
        missing=len(missing),
        unhydrated=sum(position in told.announced for position in lost),
        misrouted=int(here.misrouted[missing].sum()),
        duplicated=len(doubled),
        unknown=len(unknown),
        trimmed=trimmed,
        overdue=len(overdue),
        dropped=len(dropped),
    )
    return ShardAudit(
        here.shard,
        count,
        tuple(lost[:MAX_POSITIONS]),
        tuple(_duplicates(told, joined, doubled[:MAX_POSITIONS])),
        tuple(unknown[:MAX_POSITIONS]),
        tuple(here.tokens.take(pa.array(dropped[:MAX_POSITIONS])).to_pylist()),
        _waiting(here, overdue, checkpoint),
    )


def _unaccounted(
    here: Accepted, without: Mask, checkpoint: str | None, allowed: Limit | None
) -> tuple[IntVector, IntVector, IntVector, IntVector]:
    """Return the indexes of positions without an account: dropped, missing, pending, overdue.

    Overdue positions are pending as well.
    """
    none = np.zeros(len(without), dtype=np.bool_)
    unread = none if here.unread is None else here.unread
    old = none if allowed is None or here.arrived is None else here.arrived < allowed.bound
    open_from = len(without) if checkpoint is None else _done(here.tokens, checkpoint)
    done = np.arange(len(without)) < open_from
    # No consumer reads a misrouted record, so at the tip no checkpoint passes it until another record follows.
    lost = without & ~unread & (done | (here.misrouted & old))
    pending = without & ~unread & ~lost
    return (
        np.flatnonzero(without & unread),
        np.flatnonzero(lost),
        np.flatnonzero(pending),
        np.flatnonzero(pending & old),
    )


def _waiting(here: Accepted, overdue: IntVector, checkpoint: str | None) -> Waiting | None:
    if not len(overdue) or here.arrived is None:
        return None
    first = overdue[np.argmin(here.arrived[overdue])]
    oldest = arrived_at(int(here.arrived[first]))
    return Waiting(len(overdue), oldest, here.tokens[int(first)].as_py(), checkpoint or "")


def _described(
    shard: ShardAudit, allowed: Limit, stored_at: datetime | None, after: Mapping[str, str] | None
) -> ShardAudit:
    if shard.waiting is None:
        return shard
    moved = None if after is None else after.get(shard.shard, "TRIM_HORIZON") != shard.waiting.checkpoint
    return with_explanation(shard, allowed, stored_at, moved)


@dataclass(frozen=True, slots=True)
class _Joined:
    """The accounts by position: `account[i]` is the index in `unique` of account i's position.

    For each unique position: the number of its accounts, the lowest kind, and its index among the accepted
    positions, -1 where it is not one of them.
    """

    unique: Tokens
    account: IntVector
    source: IntVector
    times: IntVector
    kind: IntVector
    at: IntVector


def _join(accepted_tokens: Tokens, told: Accounts) -> _Joined:
    encoded = told.tokens.dictionary_encode()
    unique, account = encoded.dictionary, encoded.indices.to_numpy().astype(np.int64)
    kinds = np.array([source.kind for source in told.sources], dtype=np.int64)
    kind = np.full(len(unique), _NO_ACCOUNT, dtype=np.int64)
    np.minimum.at(kind, account, kinds[told.source])
    found = pc.index_in(unique, value_set=accepted_tokens)
    at = pc.fill_null(found, -1).to_numpy().astype(np.int64)
    return _Joined(unique, account, told.source, np.bincount(account, minlength=len(unique)), kind, at)


def _done(tokens: Tokens, checkpoint: str) -> int:
    """Return the number of accepted positions at or before a checkpoint."""
    if checkpoint in _NOTHING_DONE:
        return 0
    if checkpoint == _ALL_DONE:
        return len(tokens)
    bound = position_from_token("", checkpoint).order
    return bisect.bisect_right(range(len(tokens)), bound, key=lambda i: _order(tokens[i].as_py()))


def _outside(tokens: Tokens, joined: _Joined) -> tuple[int, list[str]]:
    """Examine accounts of positions that the stream does not hold.

    Returns how many stored ones were trimmed from the stream, and those that the stream never had. Positions after
    the newest one that was read arrived later and count as neither.
    """
    outside: Mask = joined.at < 0
    if not len(tokens):
        return int((outside & (joined.kind == Kind.STORED)).sum()), []
    oldest, newest = _order(tokens[0].as_py()), _order(tokens[-1].as_py())
    trimmed, unknown = 0, []
    for index in np.flatnonzero(outside).tolist():
        position = joined.unique[index].as_py()
        if _order(position) < oldest:
            trimmed += int(joined.kind[index] == Kind.STORED)
        elif _order(position) < newest:
            unknown.append(position)
    return trimmed, unknown


def _parked(told: Accounts, joined: _Joined) -> dict[str, int]:
    counts: dict[str, int] = {}
    only_parked = (joined.kind == Kind.PARKED) & (joined.at >= 0)
    # The first account of each position, so that one parked twice is counted once.
    positions, first = np.unique(joined.account, return_index=True)
    for account in first[only_parked[positions]].tolist():
        code = told.sources[joined.source[account]].code
        counts[code] = counts.get(code, 0) + 1
    return dict(sorted(counts.items()))


def _duplicates(told: Accounts, joined: _Joined, doubled: IntVector) -> list[Duplicate]:
    where: dict[int, list[str]] = {index: [] for index in doubled.tolist()}
    for account in np.flatnonzero(np.isin(joined.account, doubled)).tolist():
        where[int(joined.account[account])].append(told.sources[joined.source[account]].key)
    return [Duplicate(joined.unique[index].as_py(), tuple(found)) for index, found in where.items()]


def _order(position: str) -> tuple[int, int]:
    return position_from_token("", position).order
