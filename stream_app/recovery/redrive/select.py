"""The failures that a plan is made of: a query in words, its answer with ETags, and the digest of that answer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from stream_app.aws.objects import get_with_etag
from stream_app.errors import ConfigError, Problem
from stream_app.recovery.find.query import Query, find
from stream_app.recovery.find.times import parse_time
from stream_app.recovery.hours import hours
from stream_app.recovery.store import FAILURES, OPEN, STATUSES, StoredFailure, folder, load, status

_SEVERAL = ("code", "status")
_NAMES = (
    *("since", "until", "partition", "shard", "code", "status", "event", "reason", "fingerprint"),
    *("limit", "key"),
)
_PAIR = re.compile(rf"({'|'.join(_NAMES)})=(.*?)(?:,(?=(?:{'|'.join(_NAMES)})=)|$)", re.DOTALL)
_HINT = f"write name=value[,name=value…], with names of {', '.join(_NAMES)}"


class Selection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which failures of a consumer: arrived in [since, until), UTC, and all else that is given.

    `reason` is looked for in the reason, whatever the case. Of `codes`, `statuses` any will do; without a status
    it is what is open. `limit` takes the first ones only; `key` is that of a single failure.
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
        """As the failure store is asked."""
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
    """One failure: its key and ETag, which together say that it is still the same, itself, and its status."""

    key: str
    etag: str
    stored: StoredFailure
    status: str


def parse_selection(texts: Sequence[str], now: datetime) -> Selection:
    """What `--select` says: `code=RULE_BROKEN,event=air_quality`; given several times, all of it holds.

    A name given twice means any of its values (codes and statuses only). Times are as in `find.times.moment`: so
    long before `now`, or ISO-8601. Raises ConfigError with every problem.
    """
    problems: list[Problem] = []
    given: dict[str, list[str]] = {}
    for text in texts:
        pairs = list(_PAIR.finditer(text))
        if sum(len(pair[0]) for pair in pairs) != len(text) or not pairs:
            problems.append(Problem(f"--select {text!r} cannot be read", _HINT))
        for pair in pairs:
            given.setdefault(pair[1], []).append(pair[2])
    values: dict[str, Any] = {}
    for name, found in given.items():
        if name not in _SEVERAL and len(found) > 1:
            problems.append(Problem(f"{name} is selected twice", "give it once"))
        try:
            values |= _value(name, found, now)
        except ValueError as error:
            problems.append(Problem(f"--select {name}={found[-1]}: {error}", _HINT))
        except ConfigError as error:
            problems += error.problems
    if "key" in given and len(given) > 1:
        problems.append(Problem("a key names one failure", "select by key, or by anything else"))
    if problems:
        raise ConfigError(problems)
    return Selection(**values)


def _value(name: str, found: list[str], now: datetime) -> dict[str, Any]:
    match name:
        case "since" | "until":
            return {name: parse_time(found[0], now)}
        case "code":
            return {"codes": tuple(sorted({text.upper() for text in found}))}
        case "status":
            if unknown := set(found) - set(STATUSES):
                raise ValueError(f"no status is {min(unknown)!r}, known are {', '.join(STATUSES)}")
            return {"statuses": tuple(sorted(set(found)))}
        case "limit":
            if not found[0].isascii() or not found[0].isdigit() or int(found[0]) < 1:
                raise ValueError("not a number above 0")
            return {name: int(found[0])}
        case _:
            return {name: found[0]}


def select(
    s3: Any, bucket: str, consumer: str, selection: Selection, threads: Executor, *, any_status: bool = False
) -> Iterator[Selected]:
    """The failures of a selection, by hour, partition key and arrival; of every status if so asked.

    What is written to the store while it is read may be left out. Raises what boto3 raises.
    """
    if selection.key is not None:
        one = select_one(s3, bucket, selection.key)
        wanted = one is not None and (any_status or one.status in selection.statuses)
        return iter([one] if one is not None and wanted else [])
    etags = dict(_etags(s3, bucket, consumer, selection))
    found = find(s3, bucket, selection.query(consumer, any_status=any_status), threads)
    with_etags = (
        Selected(one.key, etags[one.key], one.stored, one.status or "") for one in found if one.key in etags
    )
    return islice(with_etags, None if any_status else selection.limit)


def select_one(s3: Any, bucket: str, key: str) -> Selected | None:
    """One failure by its key, None where there is none. Raises ValueError when it is none, and what boto3 raises."""
    body, etag = get_with_etag(s3, bucket, key)
    return None if body is None else Selected(key, etag, load(body), status(s3, bucket, key) or "")


def _etags(s3: Any, bucket: str, consumer: str, selection: Selection) -> Iterator[tuple[str, str]]:
    prefix = f"{FAILURES}{consumer}/"
    inside = "" if selection.partition is None else f"{folder(selection.partition)}/"
    lister = s3.get_paginator("list_objects_v2")
    for hour in hours(s3, bucket, prefix, selection.since, selection.until, newest_first=False):
        for page in lister.paginate(Bucket=bucket, Prefix=hour + inside):
            for item in page.get("Contents", ()):
                yield item["Key"], item["ETag"].strip('"')


def digest(pairs: Iterable[tuple[str, str]]) -> str:
    """SHA-256 (hex) of keys and ETags, whatever their order."""
    lines = sorted(f"{etag} {key}\n" for key, etag in pairs)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
