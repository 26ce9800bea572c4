"""Statistics of failures: counts by time and code, and by cause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from stream_app.model.segment import utc_datetime
from stream_app.recovery.find.query import Found, cause

# A JSON object in built-in types.
Json = dict[str, Any]

# Row lengths of the table: the shortest one that needs at most _MAX_ROWS rows is used.
_STEP_LENGTHS = tuple(timedelta(minutes=m) for m in (1, 5, 15, 60, 180, 720, 1_440, 7 * 1_440))
_MAX_ROWS = 48
_MAX_DEVICES = 10_000


@dataclass(slots=True)
class Cause:
    """All failures with one fingerprint; `sample` is the key of the last one, `reason` its reason.

    `keys` holds partition keys, up to a limit.
    """

    fingerprint: str
    stage: str
    code: str
    event: str | None
    reason: str
    sample: str
    first: datetime
    last: datetime
    count: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    keys: set[str] = field(default_factory=set)

    @property
    def devices(self) -> int:
        """The number of affected partition keys."""
        return len(self.keys)

    def to_json(self) -> Json:
        """Return built-in types."""
        return {
            "fingerprint": self.fingerprint,
            "count": self.count,
            "stage": self.stage,
            "code": self.code,
            "event": self.event,
            "reason": self.reason,
            "devices": self.devices,
            "first": timestamp_text(self.first),
            "last": timestamp_text(self.last),
            "statuses": dict(sorted(self.statuses.items())),
            "sample": self.sample,
        }


@dataclass(slots=True)
class Stats:
    """Counts of failures: `by_time[minute][code]`, by status, and causes by fingerprint."""

    count: int = 0
    by_time: dict[datetime, Counter[str]] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    causes: dict[str, Cause] = field(default_factory=dict)

    def add(self, found: Found) -> None:
        """Count a failure."""
        stored, arrived = found.stored, utc_datetime(found.stored.arrived)
        status = found.status or "unknown"
        minute = arrived.replace(second=0, microsecond=0)
        self.count += 1
        self.by_time.setdefault(minute, Counter())[stored.code] += 1
        self.statuses[status] += 1
        name = cause(stored)
        one = self.causes.get(name)
        if one is None:
            one = Cause(
                name, stored.stage, stored.code, stored.event, stored.reason, found.key, arrived, arrived
            )
            self.causes[name] = one
        _count(one, found, arrived, status)

    @property
    def codes(self) -> list[str]:
        """Every failure code, the most frequent first."""
        total: Counter[str] = sum(self.by_time.values(), Counter())
        return [code for code, _ in sorted(total.items(), key=lambda pair: (-pair[1], pair[0]))]

    def ranked(self) -> list[Cause]:
        """Return the causes, the most frequent first."""
        return sorted(self.causes.values(), key=lambda one: (-one.count, one.fingerprint))

    def to_json(self) -> Json:
        """Return built-in types; the rows are those of `count_table`."""
        step, rows = count_table(self.by_time)
        return {
            "count": self.count,
            "statuses": dict(sorted(self.statuses.items())),
            "step_s": int(step.total_seconds()),
            "by_time": [
                {"from": timestamp_text(at), "codes": dict(sorted(row.items()))} for at, row in rows.items()
            ],
            "causes": [one.to_json() for one in self.ranked()],
        }


def stats(found: Iterable[Found]) -> Stats:
    """Count failures."""
    counted = Stats()
    for one in found:
        counted.add(one)
    return counted


def count_table(by_time: Mapping[datetime, Counter[str]]) -> tuple[timedelta, dict[datetime, Counter[str]]]:
    """Return the length of a row and the counts per row, in order.

    The length is the shortest that needs at most 48 rows. Rows without failures are omitted.
    """
    if not by_time:
        return _STEP_LENGTHS[0], {}
    period = max(by_time) - min(by_time)
    step = next((one for one in _STEP_LENGTHS if period / one < _MAX_ROWS), _STEP_LENGTHS[-1])
    rows: dict[datetime, Counter[str]] = {}
    for minute in sorted(by_time):
        rows.setdefault(_floor(minute, step), Counter()).update(by_time[minute])
    return step, rows


def timestamp_text(at: datetime) -> str:
    """Return a time as ISO 8601, UTC, in seconds."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _count(one: Cause, found: Found, arrived: datetime, status: str) -> None:
    one.count += 1
    one.statuses[status] += 1
    if len(one.keys) < _MAX_DEVICES:
        one.keys.add(found.stored.partition_key)
    one.first = min(one.first, arrived)
    if arrived >= one.last:
        one.last, one.reason, one.sample = arrived, found.stored.reason, found.key


def _floor(at: datetime, step: timedelta) -> datetime:
    origin = datetime(1970, 1, 5, tzinfo=at.tzinfo)  # a Monday, so that weeks start on Mondays
    return origin + (at - origin) // step * step
