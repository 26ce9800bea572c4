"""Finds failures in the store, by their keys first and by their content only if needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from stream_app.aws.objects import get, keys
from stream_app.model.segment import token, utc_datetime
from stream_app.recovery import store
from stream_app.recovery.find.fingerprint import fingerprint
from stream_app.recovery.hours import hours
from stream_app.recovery.store import FAILURES, StoredFailure, folder, parse_key

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_HANDLE_LENGTH = 10
READ_AHEAD = 64  # failures that are read at a time, and at most in vain if the caller stops early


@dataclass(frozen=True, slots=True)
class Query:
    """A filter for a consumer's failures: all given criteria must match.

    The arrival is in [since, until), UTC. `text` is searched in the reason, ignoring case. Of several codes or
    statuses, any may match.
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
        """Whether the query needs the content of failures, not only their keys and tags."""
        return bool(self.codes or self.event or self.text or self.fingerprint)


class Found(NamedTuple):
    """A failure: its key, its content, and its status (None if it was not requested)."""

    key: str
    stored: StoredFailure
    status: str | None


def find(
    s3: S3Client,
    bucket: str,
    query: Query,
    threads: Executor,
    *,
    newest_first: bool = False,
    with_status: bool = True,
    unreadable: Callable[[str], None] = lambda _key: None,
    ahead: int = READ_AHEAD,
) -> Iterator[Found]:
    """Yield the failures that match a query, in the order of `find_keys`.

    Lazy: if the caller stops early, at most `ahead` failures were read in vain. The number of S3 requests is
    proportional to the hours in the period and the failures in them: one per page of keys, per failure, and per tag
    set. `unreadable` is called with the keys of objects that are not failures. Raises what boto3 raises.
    """
    read = partial(_read, s3, bucket, query, with_status or bool(query.statuses), unreadable)
    candidates = find_keys(s3, bucket, query, newest_first=newest_first)
    for chunk in _chunks(candidates, max(1, ahead)):
        yield from (found for found in threads.map(read, chunk) if found is not None)


def find_keys(s3: S3Client, bucket: str, query: Query, *, newest_first: bool = False) -> Iterator[str]:
    """Yield the keys that match the query's consumer, period, partition key and shard.

    Does not read failures. The keys are ordered by hour; within an hour by partition key and arrival, or, with
    `newest_first`, by arrival alone.
    """
    prefix = f"{FAILURES}{query.consumer}/"
    folder_part = "" if query.partition_key is None else f"{folder(query.partition_key)}/"
    for hour in hours(s3, bucket, prefix, query.since, query.until, newest_first=newest_first):
        found = (key for key in keys(s3, bucket, hour + folder_part) if _key_matches(key, query))
        # S3 lists by partition key, so the newest failure of an hour is known only after listing all of it.
        yield from sorted(found, key=_file_name, reverse=True) if newest_first else found


def find_named(s3: S3Client, bucket: str, query: Query, name: str) -> str | None:
    """Return the key of a failure by its handle or by its position `[<shard>/]<sequence>[.<sub>]`.

    Searches only the keys that match `query`, the newest hour first.
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
    """Return ten hex digits that identify a failure; they depend on its key only."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:_HANDLE_LENGTH]


def cause(stored: StoredFailure) -> str:
    """Return the fingerprint of a failure's error."""
    return fingerprint(stored.stage, stored.code, stored.event, stored.reason)


def _file_name(key: str) -> str:
    """Return the last part of the key, which starts with the arrival."""
    return key.rpartition("/")[2]


def _key_matches(key: str, query: Query) -> bool:
    found = parse_key(key)
    if found is None or (query.shard is not None and found.position.shard != query.shard):
        return False
    arrived = utc_datetime(found.arrived)
    return (query.since is None or arrived >= query.since) and (query.until is None or arrived < query.until)


def _read(
    s3: S3Client, bucket: str, query: Query, with_status: bool, unreadable: Callable[[str], None], key: str
) -> Found | None:
    """Return the failure if it matches; the cheapest request that can reject it comes first."""
    status = None
    if query.statuses and not query.reads:
        status = store.status(s3, bucket, key)
        if status not in query.statuses:
            return None
    stored = _stored(s3, bucket, key, unreadable)
    if stored is None or not _failure_matches(stored, query):
        return None
    if with_status and status is None:
        status = store.status(s3, bucket, key)
        if query.statuses and status not in query.statuses:
            return None
    return Found(key, stored, status)


def _stored(s3: S3Client, bucket: str, key: str, unreadable: Callable[[str], None]) -> StoredFailure | None:
    body = get(s3, bucket, key)
    if body is None:
        return None  # expired since it was listed
    try:
        return store.load(body)
    except ValueError:
        unreadable(key)
        return None


def _failure_matches(stored: StoredFailure, query: Query) -> bool:
    return (
        (not query.codes or stored.code in query.codes)
        and (query.event is None or stored.event == query.event)
        and (query.text is None or query.text.casefold() in stored.reason.casefold())
        and (query.fingerprint is None or cause(stored) == query.fingerprint)
    )


def _chunks(candidates: Iterable[str], size: int) -> Iterator[Sequence[str]]:
    iterator = iter(candidates)
    while chunk := list(islice(iterator, size)):
        yield chunk
