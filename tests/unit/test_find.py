"""Finding failures: exactly the matching failures are found, with requests only for what is searched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.errors import ConfigError
from stream_app.model.segment import token, utc_datetime
from stream_app.recovery.find.query import READ_AHEAD, Query, cause, find, find_keys, find_named, handle
from stream_app.recovery.find.times import parse_duration
from stream_app.recovery.hours import hours
from stream_app.recovery.store import STATUSES, parse_key
from tests.unit.failure_store import BUCKET, CODES, DEVICES, Store, at, keys, status_of, stored_failure

HOURS, PER_HOUR = 200, 250
MANY = keys(HOURS, PER_HOUR)
FEW = keys(40, 6)


@pytest.fixture(scope="module")
def threads() -> Iterator[Executor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_the_test_store_is_large() -> None:
    assert len(MANY) == len(set(MANY)) == 100_000


def test_the_requests_for_one_hour_depend_only_on_that_hour(threads: Executor) -> None:
    store: Any = Store(MANY)
    found = list(find(store, BUCKET, Query("air", at(17), at(18)), threads))
    assert len(found) == PER_HOUR
    assert store.calls == Counter(list=1, get=PER_HOUR, tags=PER_HOUR)
    small: Any = Store(keys(20, PER_HOUR, ["air"]))
    assert list(find(small, BUCKET, Query("air", at(17), at(18)), threads)) == found
    assert small.calls == store.calls, "the rest of the store does not matter"


@pytest.mark.parametrize("asked", [1, 2, 5, 20, 100])
def test_requests_grow_with_the_number_of_hours(asked: int, threads: Executor) -> None:
    store: Any = Store(MANY)
    found = list(find(store, BUCKET, Query("air", at(30), at(30 + asked)), threads, with_status=False))
    assert len(found) == asked * PER_HOUR
    assert store.calls["get"] == asked * PER_HOUR
    assert store.calls["tags"] == 0
    # A page of keys for each hour, and one for each partially covered day, month and year.
    assert asked <= store.calls["list"] <= asked + asked // 24 + 5


def test_results_are_read_lazily(threads: Executor) -> None:
    store: Any = Store(MANY)
    found = list(islice(find(store, BUCKET, Query("air"), threads, newest_first=True), 5))
    assert len(found) == 5
    assert all(utc_datetime(one.stored.arrived) >= at(HOURS - 1) for one in found)
    assert store.calls["get"] <= READ_AHEAD
    assert store.calls["list"] <= 5


def test_filters_on_keys_need_no_object_reads(threads: Executor) -> None:
    store: Any = Store(MANY)
    query = Query("air", at(5), at(7), partition_key="Tiantan/2", shard="shardId-000000000001")
    found = list(find(store, BUCKET, query, threads))
    assert {one.stored.partition_key for one in found} == {"Tiantan/2"}
    assert store.calls["get"] == len(found) > 0
    # Two hours are listed, each only in the device's folder, and the day, to find its hours.
    assert store.calls["list"] == 3


def test_the_status_is_checked_before_an_object_is_read(threads: Executor) -> None:
    store: Any = Store(MANY)
    found = list(find(store, BUCKET, Query("air", at(3), at(4), statuses=frozenset({"open"})), threads))
    assert {one.status for one in found} == {"open"}
    assert (store.calls["tags"], store.calls["get"]) == (PER_HOUR, len(found))
    assert 0 < len(found) < PER_HOUR


QUERIES = st.builds(
    Query,
    consumer=st.sampled_from(["air", "other", "nobody"]),
    since=st.none() | st.integers(-300, 2_700).map(lambda minutes: at(minutes / 60)),
    until=st.none() | st.integers(-300, 2_700).map(lambda minutes: at(minutes / 60)),
    partition_key=st.none() | st.sampled_from([*DEVICES, "unknown"]),
    shard=st.none() | st.sampled_from(["shardId-000000000000", "shardId-000000000002"]),
    codes=st.frozensets(st.sampled_from(CODES), max_size=2),
    statuses=st.frozensets(st.sampled_from(STATUSES), max_size=2),
    event=st.none() | st.just("air_quality"),
    text=st.none() | st.sampled_from(["FIELD B", "wrong", "value 100000000000000000012 "]),
    fingerprint=st.none() | st.sampled_from([cause(stored_failure(key)) for key in FEW[:3]]),
)


def matches(key: str, query: Query) -> bool:
    """Return whether a failure matches the query: a simple reference implementation."""
    found, stored = parse_key(key), stored_failure(key)
    assert found is not None
    arrived = datetime.fromtimestamp(found.arrived / 1000, at(0).tzinfo)
    wanted = [
        found.consumer == query.consumer,
        query.since is None or query.since <= arrived,
        query.until is None or arrived < query.until,
        query.partition_key in (None, found.partition_key),
        query.shard in (None, found.position.shard),
        not query.codes or stored.code in query.codes,
        not query.statuses or status_of(key) in query.statuses,
        query.event in (None, stored.event),
        query.text is None or query.text.lower() in stored.reason.lower(),
        query.fingerprint in (None, cause(stored)),
    ]
    return all(wanted)


@given(QUERIES, st.booleans(), st.sampled_from([1, 7, 64]))
@settings(max_examples=200)
def test_exactly_the_matching_failures_are_found(query: Query, newest_first: bool, ahead: int) -> None:
    store: Any = Store(FEW, ["failures/air/2016/12/30/20/Dongsi/notes.txt", "failures/air/README"])
    with ThreadPoolExecutor(2) as threads:
        found = list(find(store, BUCKET, query, threads, newest_first=newest_first, ahead=ahead))
    assert sorted(one.key for one in found) == sorted(key for key in FEW if matches(key, query))
    assert all(one.stored == stored_failure(one.key) and one.status == status_of(one.key) for one in found)
    hour = [one.key.split("/", 6)[2:6] for one in found]
    assert hour == sorted(hour, reverse=newest_first)
    if newest_first:
        arrived = [one.stored.arrived for one in found]
        assert arrived == sorted(arrived, reverse=True)


def test_unreadable_objects_are_reported_and_skipped(threads: Executor) -> None:
    odd = FEW[3].replace("-0.json", "-1.json")
    unreadable: list[str] = []
    store: Any = Store(FEW, [odd])
    found = list(find(store, BUCKET, Query("air"), threads, unreadable=unreadable.append))
    assert unreadable == [odd]
    assert len(found) == len(FEW) // 2


@given(st.integers(0, len(FEW) - 1), st.sampled_from(["handle", "whole", "sequence"]))
def test_a_failure_is_found_by_name_without_reading_objects(number: int, form: str) -> None:
    key = FEW[number]
    store: Any = Store(FEW)
    found = parse_key(key)
    assert found is not None
    position = found.position
    name = {
        "handle": handle(key),
        "whole": f"{position.shard}/{token(position)}",
        "sequence": position.sequence,
    }[form]
    assert find_named(store, BUCKET, Query(found.consumer), name) == key
    assert set(store.calls) == {"list"}
    assert find_named(store, BUCKET, Query(found.consumer), "0" * 11) is None
    assert find_named(store, BUCKET, Query(found.consumer), f"shardId-9/{token(position)}") is None


@given(
    st.sets(st.integers(0, 24 * 800).map(lambda hour: at(0) + timedelta(hours=hour)), max_size=12),
    st.none() | st.integers(-2_000, 60 * 24 * 810).map(lambda minute: at(minute / 60)),
    st.none() | st.integers(-2_000, 60 * 24 * 810).map(lambda minute: at(minute / 60)),
    st.booleans(),
)
def test_the_hours_are_those_that_overlap_the_interval(
    there: set[datetime], since: datetime | None, until: datetime | None, newest_first: bool
) -> None:
    store: Any = Store([f"p/{hour:%Y/%m/%d/%H}/x" for hour in there] + ["p/waiting/x", "q/2016/12/30/20/x"])
    found = list(hours(store, BUCKET, "p/", since, until, newest_first=newest_first))
    length = timedelta(hours=1)
    wanted = {
        f"p/{hour:%Y/%m/%d/%H}/"
        for hour in there
        if (since is None or hour + length > since) and (until is None or hour < until)
    }
    assert found == sorted(found, reverse=newest_first)
    assert wanted <= set(found)
    # If only one hour is possible, it is returned without a request.
    assert set(found) - wanted == set() or len(found) == 1
    assert store.calls["list"] <= 2 + 3 * len(there)


def test_keys_are_listed_lazily() -> None:
    store: Any = Store(MANY)
    assert len(list(islice(find_keys(store, BUCKET, Query("air", at(0))), 10))) == 10
    assert store.calls["list"] <= 5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("300s", 300), ("5m", 300), ("1h", 3_600), ("2d", 172_800), ("1w", 604_800), ("0s", 0)],
)
def test_a_duration_is_parsed(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "m", "-5m", "5 m", "5min", "1.5h", "9999999s", "٥m", "soon"])
def test_an_invalid_duration_is_rejected_with_a_hint(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_duration(text)
    (problem,) = error.value.problems
    assert repr(text) in problem.what
    assert "5m" in problem.hint
