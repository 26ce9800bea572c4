"""Selection of failures for a plan: filters, the matching failures with ETags, and the digest of that set."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from stream_app.aws.objects import get_with_etag
from stream_app.errors import ConfigError, Problem
from stream_app.recovery.find.query import Query, find
from stream_app.recovery.find.times import parse_time
from stream_app.recovery.hours import hours
from stream_app.recovery.store import FAILURES, OPEN, STATUSES, StoredFailure, folder, load, status

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_REPEATABLE = ("code", "status")
_NAMES = (
    *("since", "until", "partition", "shard", "code", "status", "event", "reason", "fingerprint"),
    *("limit", "key"),
)
_PAIR = re.compile(rf"({'|'.join(_NAMES)})=(.*?)(?:,(?=(?:{'|'.join(_NAMES)})=)|$)", re.DOTALL)
_HINT = f"write name=value[,name=value…]; the names are {', '.join(_NAMES)}"


class Selection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Filters for the failures of a consumer that arrived in [since, until), UTC; all given filters must match.

    `reason` matches a substring, ignoring case. Of `codes` and `statuses` any value matches; the default status is
    open. `limit` selects only the first failures, `key` a single one.
    """

    since: datetime | None = None
    until: datetime | None = None
    partition: str | None = None
    shard: str | None = None
    codes: tuple[str, ...] = ()
    statuses: tuple[str, ...] = (OPEN,)
    event: str | None = None
    reason: str | None = None
    fingerprint: str | None = None
    limit: int | None = None
    key: str | None = None

    def query(self, consumer: str, *, any_status: bool = False) -> Query:
        """The equivalent query of the failure store."""
        return Query(
            consumer,
            self.since,
            self.until,
            self.partition,
            self.shard,
            frozenset(self.codes),
            frozenset(() if any_status else self.statuses),
            self.event,
            self.reason,
            self.fingerprint,
        )


class Selected(NamedTuple):
    """A selected failure with its status; key and ETag together identify this version of the object."""

    key: str
    etag: str
    stored: StoredFailure
    status: str


def parse_selection(texts: Sequence[str], now: datetime) -> Selection:
    """Parse the values of `--select`, such as `code=RULE_BROKEN,event=air_quality`; all of them must match.

    A repeated code or status means any of the values; other names must not be repeated. Times are as in
    `find.times.moment`: an age before `now`, or ISO-8601. Raises ConfigError with every problem found.
    """
    problems: list[Problem] = []
    given: dict[str, list[str]] = {}
    for text in texts:
        pairs = list(_PAIR.finditer(text))
        if sum(len(pair[0]) for pair in pairs) != len(text) or not pairs:
            problems.append(Problem(f"--select {text!r} is not valid", _HINT))
        for pair in pairs:
            given.setdefault(pair[1], []).append(pair[2])
    filters: dict[str, object] = {}
    for name, found in given.items():
        if name not in _REPEATABLE and len(found) > 1:
            problems.append(Problem(f"{name} is given twice in --select", "give it once"))
        try:
            filters |= _filter(name, found, now)
        except ValueError as error:
            problems.append(Problem(f"--select {name}={found[-1]}: {error}", _HINT))
        except ConfigError as error:
            problems += error.problems
    if "key" in given and len(given) > 1:
        problems.append(
            Problem("key is combined with other filters", "select by key alone, or by other filters")
        )
    if problems:
        raise ConfigError(problems)
    return msgspec.convert(filters, Selection)


def _filter(name: str, found: list[str], now: datetime) -> dict[str, object]:
    match name:
        case "since" | "until":
            return {name: parse_time(found[0], now)}
        case "code":
            return {"codes": tuple(sorted({text.upper() for text in found}))}
        case "status":
            if unknown := set(found) - set(STATUSES):
                raise ValueError(
                    f"unknown status {min(unknown)!r} (expected {', '.join(STATUSES[:-1])} or {STATUSES[-1]})"
                )
            return {"statuses": tuple(sorted(set(found)))}
        case "limit":
            if not found[0].isascii() or not found[0].isdigit() or int(found[0]) < 1:
                raise ValueError("not a positive number")
            return {"limit": int(found[0])}
        case _:
            return {name: found[0]}


def select(
    s3: S3Client,
    bucket: str,
    consumer: str,
    selection: Selection,
    threads: Executor,
    *,
    any_status: bool = False,
) -> Iterator[Selected]:
    """Iterate over the selected failures by hour, partition key and arrival. Raises boto3 errors.

    With `any_status` the selection's statuses and limit are ignored. Failures stored during the iteration may be
    missing.
    """
    if selection.key is not None:
        one = select_one(s3, bucket, selection.key)
        matches = one is not None and (any_status or one.status in selection.statuses)
        return iter([one] if one is not None and matches else [])
    etags = dict(_etags(s3, bucket, consumer, selection))
    found = find(s3, bucket, selection.query(consumer, any_status=any_status), threads)
    with_etags = (
        Selected(one.key, etags[one.key], one.stored, one.status or "") for one in found if one.key in etags
    )
    return islice(with_etags, None if any_status else selection.limit)


def select_one(s3: S3Client, bucket: str, key: str) -> Selected | None:
    """Return one failure by key, None if there is none. Raises ValueError if it is malformed, and boto3 errors."""
    body, etag = get_with_etag(s3, bucket, key)
    return None if body is None else Selected(key, etag, load(body), status(s3, bucket, key) or "")


def _etags(s3: S3Client, bucket: str, consumer: str, selection: Selection) -> Iterator[tuple[str, str]]:
    prefix = f"{FAILURES}{consumer}/"
    subfolder = "" if selection.partition is None else f"{folder(selection.partition)}/"
    lister = s3.get_paginator("list_objects_v2")
    for hour in hours(s3, bucket, prefix, selection.since, selection.until, newest_first=False):
        for page in lister.paginate(Bucket=bucket, Prefix=hour + subfolder):
            for item in page.get("Contents", ()):
                yield item["Key"], item["ETag"].strip('"')


def digest(pairs: Iterable[tuple[str, str]]) -> str:
    """Return the SHA-256 (hex) of keys and ETags, independent of their order."""
    lines = sorted(f"{etag} {key}\n" for key, etag in pairs)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
