"""Find failures in the store: by what their keys say first, and only then by reading them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from stream_app.aws.objects import get, keys
from stream_app.model.segment import token, utc_datetime
from stream_app.recovery import store
from stream_app.recovery.find.fingerprint import fingerprint
from stream_app.recovery.hours import hours
from stream_app.recovery.store import FAILURES, StoredFailure, folder, parse_key

_HANDLE = 10
READ_AHEAD = 64  # failures read at a time: as many may be read in vain by whoever stops early


@dataclass(frozen=True, slots=True)
class Query:
    """Which failures of a consumer: arrived in [since, until), UTC, and of everything else that is given.

    `text` is looked for in the reason, whatever the case. Where there are several codes or statuses, any will do.
    """

    consumer: str
    since: datetime | None = None
    until: datetime | None = None
    partition_key: str | None = None
    shard: str | None = None
    codes: frozenset[str] = field(default=frozenset())
    statuses: frozenset[str] = field(default=frozenset())
    event: str | None = None
    text: str | None = None
    fingerprint: str | None = None

    @property
    def reads(self) -> bool:
        """Whether the failures themselves must be read to answer it, not their keys and tags alone."""
        return bool(self.codes or self.event or self.text or self.fingerprint)


class Found(NamedTuple):
    """A failure: its key, itself, and its status (None where that was not asked for)."""

    key: str
    stored: StoredFailure
    status: str | None


def find(
    s3: Any,
    bucket: str,
    query: Query,
    threads: Executor,
    *,
    newest_first: bool = False,
    with_status: bool = True,
    unreadable: Callable[[str], None] = lambda _key: None,
    ahead: int = READ_AHEAD,
) -> Iterator[Found]:
    """The failures that a query asks for, in the order of `find_keys`.

    Lazy: whoever stops early has read `ahead` failures too many at the most. The requests to S3 are in proportion
    to the hours asked for and what lies in them: a page of keys, a failure, its tags. `unreadable` is told the keys
    of objects that are no failures. Raises what boto3 raises.
    """
    read = partial(_read, s3, bucket, query, with_status or bool(query.statuses), unreadable)
    candidates = find_keys(s3, bucket, query, newest_first=newest_first)
    for some in _chunks(candidates, max(1, ahead)):
        yield from (found for found in threads.map(read, some) if found is not None)


def find_keys(s3: Any, bucket: str, query: Query, *, newest_first: bool = False) -> Iterator[str]:
    """The keys that meet what a key can tell: consumer, time, partition key, shard. Reads no failure.

    By hour; within an hour by partition key and then arrival, or, the newest first, by arrival alone.
    """
    prefix = f"{FAILURES}{query.consumer}/"
    inside = "" if query.partition_key is None else f"{folder(query.partition_key)}/"
    for hour in hours(s3, bucket, prefix, query.since, query.until, newest_first=newest_first):
        found = (key for key in keys(s3, bucket, hour + inside) if _meets(key, query))
        # S3 lists by partition key: which of an hour came last is known when all of it is listed.
        yield from sorted(found, key=_name, reverse=True) if newest_first else found


def find_named(s3: Any, bucket: str, query: Query, name: str) -> str | None:
    """The key of a failure by its handle, or its position `[<shard>/]<sequence>[.<sub>]`, the newest hour first.

    Only those are looked at that `query` leaves open, and only their keys.
    """
    shard, _, wanted = name.rpartition("/")
    for key in find_keys(s3, bucket, query, newest_first=True):
        found = parse_key(key)
        if found is None:
            continue
        if token(found.position) == wanted and shard in ("", found.position.shard):
            return key
        if handle(key) == name:
            return key
    return None


def handle(key: str) -> str:
    """Ten hex digits by which people name a failure; like its key, it says nothing but which one it is."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:_HANDLE]


def cause(stored: StoredFailure) -> str:
    """The fingerprint of a failure's error."""
    return fingerprint(stored.stage, stored.code, stored.event, stored.reason)


def _name(key: str) -> str:
    """The key's last part, which begins with the arrival."""
    return key.rpartition("/")[2]


def _meets(key: str, query: Query) -> bool:
    found = parse_key(key)
    if found is None or (query.shard is not None and found.position.shard != query.shard):
        return False
    arrived = utc_datetime(found.arrived)
    return (query.since is None or arrived >= query.since) and (query.until is None or arrived < query.until)


def _read(
    s3: Any, bucket: str, query: Query, with_status: bool, unreadable: Callable[[str], None], key: str
) -> Found | None:
    """The failure, if it is what is asked for; what a query can refuse by the cheaper request is refused by that."""
    status = None
    if query.statuses and not query.reads:
        status = store.status(s3, bucket, key)
        if status not in query.statuses:
            return None
    stored = _stored(s3, bucket, key, unreadable)
    if stored is None or not _answers(stored, query):
        return None
    if with_status and status is None:
        status = store.status(s3, bucket, key)
        if query.statuses and status not in query.statuses:
            return None
    return Found(key, stored, status)


def _stored(s3: Any, bucket: str, key: str, unreadable: Callable[[str], None]) -> StoredFailure | None:
    body = get(s3, bucket, key)
    if body is None:
        return None  # settled, and expired since it was listed
    try:
        return store.load(body)
    except ValueError:
        unreadable(key)
        return None


def _answers(stored: StoredFailure, query: Query) -> bool:
    return (
        (not query.codes or stored.code in query.codes)
        and (query.event is None or stored.event == query.event)
        and (query.text is None or query.text.casefold() in stored.reason.casefold())
        and (query.fingerprint is None or cause(stored) == query.fingerprint)
    )


def _chunks(candidates: Iterable[str], size: int) -> Iterator[Sequence[str]]:
    iterator = iter(candidates)
    while some := list(islice(iterator, size)):
        yield some
