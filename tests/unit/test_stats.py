"""Failure counts: complete, and summarized in a readable number of lines."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from stream_app.model.record import Position
from stream_app.recovery.find.query import Found, cause
from stream_app.recovery.find.stats import count_table, stats
from stream_app.recovery.store import STATUSES, failure
from tests.unit.test_recovery_store import dead_letter

CODES = ("RULE_BROKEN", "UNDECODABLE", "FIELD_MISSING")


def found(number: int, arrived: int, code: str, reason: str, status: str | None) -> Found:
    told = dead_letter(Position("shardId-1", str(number)), f"device {number % 7}", arrived)
    stored = failure(msgspec.structs.replace(told, code=code, reason=reason), b"{}")
    return Found(stored.key, stored, status)


FOUND = st.lists(
    st.builds(
        found,
        st.integers(0, 10**6),
        st.integers(1_480_550_400_000, 1_480_550_400_000 + 40 * 86_400_000),
        st.sampled_from(CODES),
        st.sampled_from(["value 1 is wrong", "value 2 is wrong", "it is wrong"]),
        st.none() | st.sampled_from(STATUSES),
    ),
    max_size=60,
)


@given(FOUND)
def test_every_failure_is_counted_once_in_each_table(some: list[Found]) -> None:
    counted = stats(some)
    by_code = Counter(one.stored.code for one in some)
    _, rows = count_table(counted.by_time)
    assert counted.count == len(some) == sum(counted.statuses.values())
    assert sum(rows.values(), Counter()) == by_code
    assert sum(one.count for one in counted.ranked()) == len(some)
    assert set(counted.codes) == set(by_code)
    assert [by_code[code] for code in counted.codes] == sorted(by_code.values(), reverse=True)


@given(FOUND)
def test_a_cause_is_one_line(some: list[Found]) -> None:
    counted = stats(some)
    for one in counted.ranked():
        mine = [item for item in some if cause(item.stored) == one.fingerprint]
        arrived = [item.stored.arrived for item in mine]
        assert one.count == len(mine)
        assert one.devices == len({item.stored.partition_key for item in mine})
        assert round(one.first.timestamp() * 1000) == min(arrived)
        assert round(one.last.timestamp() * 1000) == max(arrived)
        assert one.sample in {item.key for item in mine if item.stored.arrived == max(arrived)}
    ranks = [one.count for one in counted.ranked()]
    assert ranks == sorted(ranks, reverse=True)


def test_a_thousand_failures_with_one_cause_are_one_line() -> None:
    some = [
        found(n, 1_480_550_400_000 + n, "RULE_BROKEN", f"pm25 is {n}, above 1000", "open")
        for n in range(1_000)
    ]
    [one] = stats(some).ranked()
    assert (one.count, one.devices, one.statuses) == (1_000, 7, {"open": 1_000})


TIMES = st.dictionaries(
    st.integers(0, 3_000_000).map(
        lambda minute: datetime(2016, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
    ),
    st.integers(1, 5).map(lambda count: Counter(A=count)),
    min_size=1,
    max_size=40,
)


@given(TIMES)
def test_rows_are_limited_aligned_and_ordered(by_time: dict[datetime, Counter[str]]) -> None:
    step, rows = count_table(by_time)
    assert list(rows) == sorted(rows)
    assert all((one - min(rows)) % step == timedelta(0) for one in rows)
    assert sum(row.total() for row in rows.values()) == sum(row.total() for row in by_time.values())
    assert all(any(one <= at < one + step for one in rows) for at in by_time)
    if max(by_time) - min(by_time) < timedelta(weeks=40):
        assert len(rows) <= 49


def test_json_output_has_the_same_counts() -> None:
    some = [found(n, 1_480_550_400_000 + n * 60_000, CODES[n % 2], "it is wrong", "open") for n in range(10)]
    told = stats(some).to_json()
    assert told["count"] == 10
    assert told["statuses"] == {"open": 10}
    assert sum(sum(row["codes"].values()) for row in told["by_time"]) == 10
    assert [one["count"] for one in told["causes"]] == [5, 5]
    assert told["by_time"][0]["from"] == "2016-12-01T00:00:00Z"
    assert stats([]).to_json() == {"count": 0, "statuses": {}, "step_s": 60, "by_time": [], "causes": []}
