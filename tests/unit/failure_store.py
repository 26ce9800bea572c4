"""A fake S3 failure store of any size: it holds only keys, and derives each object from its key."""

from __future__ import annotations

import io
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from stream_app.model.record import Position
from stream_app.recovery.store import STATUSES, StoredFailure, failure, failure_key, parse_key
from tests.unit.test_recovery_store import dead_letter

START = datetime(2016, 12, 30, 20, tzinfo=UTC)  # so that the keys cross the end of a month and of a year
BUCKET = "bucket"
DEVICES = ("Dongsi", "Tiantan/2", "~", "é", "Dongsi 2")
CODES = ("UNDECODABLE", "RULE_BROKEN", "FIELD_MISSING")
EVENTS = ("air_quality", None)
_SHARD = "shardId-{:012d}"
_PAGE = 1_000
_STEP_MS = 3_600_000


def stored_failure(key: str) -> StoredFailure:
    """Return the failure stored under a key, derived from the key."""
    found = parse_key(key)
    assert found is not None
    number = int(found.position.sequence)
    letter = dead_letter(found.position, found.partition_key or "", found.arrived)
    letter = msgspec.structs.replace(
        letter,
        consumer=found.consumer,
        code=CODES[number % len(CODES)],
        event=EVENTS[number % len(EVENTS)],
        reason=f"value {number} is wrong in field {'abc'[number % 3]}",
    )
    return failure(letter, b'{"n":%d}' % number)


def status_of(key: str) -> str:
    """Return the status of the failure under a key."""
    found = parse_key(key)
    assert found is not None
    return STATUSES[int(found.position.sequence) % 7 % len(STATUSES)]


def keys(hours: int, per_hour: int, consumers: Sequence[str] = ("air", "other")) -> list[str]:
    """Return keys of `per_hour` failures per hour and consumer, spread over the devices and three shards."""
    begin = int(START.timestamp() * 1000)
    step = _STEP_MS // per_hour
    return [
        failure_key(
            consumer,
            Position(_SHARD.format(n % 3), str(10**20 + hour * per_hour + n)),
            DEVICES[n % len(DEVICES)],
            begin + hour * _STEP_MS + n * step,
        )
        for consumer in consumers
        for hour in range(hours)
        for n in range(per_hour)
    ]


def at(hours: float) -> datetime:
    """Return the time `hours` after the first failure."""
    return START + timedelta(hours=hours)


class Store:
    """The part of boto3's S3 client that `find` uses; `calls` counts requests, one per page of keys."""

    def __init__(self, keys: Sequence[str], odd: Sequence[str] = ()) -> None:
        self._keys = sorted([*keys, *odd], key=str.encode)
        self._encoded = [key.encode() for key in self._keys]
        self._odd = set(odd)
        self.calls: Counter[str] = Counter()

    def get_paginator(self, name: str) -> Store:
        assert name == "list_objects_v2"
        return self

    def paginate(
        self, Bucket: str, Prefix: str, Delimiter: str = "", StartAfter: str = "", **_: Any
    ) -> Iterator[dict[str, Any]]:
        assert Bucket == BUCKET
        names = list(self._below(Prefix, Delimiter, StartAfter))
        for start in range(0, max(1, len(names)), _PAGE):
            self.calls["list"] += 1
            page = names[start : start + _PAGE]
            yield {
                "Contents": [{"Key": name} for name in page if not Delimiter or not name.endswith("/")],
                "CommonPrefixes": [{"Prefix": name} for name in page if Delimiter and name.endswith("/")],
            }

    def _below(self, prefix: str, delimiter: str, after: str) -> Iterator[str]:
        place = bisect_left(self._encoded, max(prefix, after).encode())
        while place < len(self._keys) and self._keys[place].startswith(prefix):
            key = self._keys[place]
            folder, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
            if cut:
                yield f"{prefix}{folder}{cut}"
                place = bisect_left(self._encoded, f"{prefix}{folder}{cut}".encode() + b"\xff", place)
                continue
            if key != after:
                yield key
            place += 1

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        self.calls["get"] += 1
        body = b"?" if Key in self._odd else msgspec.json.encode(stored_failure(Key))
        return {"Body": io.BytesIO(body)}

    def get_object_tagging(self, Bucket: str, Key: str) -> dict[str, Any]:
        self.calls["tags"] += 1
        return {"TagSet": [{"Key": "status", "Value": status_of(Key)}]}
