"""The audit's comparison against a model that counts one position at a time."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from stream_app.model.segment import position_from_token
from stream_app.recovery.audit.accepted import Accepted
from stream_app.recovery.audit.accounts import Accounts, Kind, Source
from stream_app.recovery.audit.proof import Audit, ShardAudit, Tally, Waiting, compare_shard
from stream_app.recovery.audit.tally import MAX_POSITIONS
from stream_app.recovery.audit.waiting import Limit, overdue_limit, with_explanation

SHARD = "shardId-000000000001"
BASE = 10**55
FIRST, COUNT = 5, 12


def at(number: int) -> str:
    """Return the token of a position; two of three positions have a sub-sequence number."""
    return f"{BASE + number // 3}.{number % 3}" if number % 3 else str(BASE + number // 3)


# Positions before, within and after the accepted records; an account is (position, kind, object).
POSITIONS = st.integers(0, FIRST + COUNT + 4)
ACCOUNTS = st.lists(st.tuples(POSITIONS, st.sampled_from(Kind), st.integers(0, 4)), max_size=30)
ACCEPTED = st.sets(st.integers(FIRST, FIRST + COUNT)).map(sorted)


def accounts_of(accounts: list[tuple[int, Kind, int]], announced: set[int]) -> Accounts:
    found = Accounts(announced={at(number): "RULE_BROKEN" for number in announced})
    for position, kind, key in accounts:
        code = f"CODE_{key}" if kind is Kind.PARKED else ""
        found.add(Source(f"{kind.name}/{key}", kind, code), pa.array([at(position)], pa.string()))
    return found


def accepted(numbers: list[int], misrouted: set[int]) -> Accepted:
    flags = np.array([number in misrouted for number in numbers], dtype=np.bool_)
    return Accepted(SHARD, pa.array([at(number) for number in numbers], pa.string()), flags, None)


def model(
    numbers: list[int],
    accounts: list[tuple[int, Kind, int]],
    done: int | None,
    announced: set[int],
    odd: set[int],
) -> ShardAudit:
    of: dict[int, list[tuple[Kind, int]]] = {}
    for position, kind, key in accounts:
        of.setdefault(position, []).append((kind, key))
    count: dict[str, Any] = dict.fromkeys(
        ("stored", "repeated", "pending", "missing", "unhydrated", "misrouted", "unknown", "trimmed"), 0
    )
    parked: dict[str, int] = {}
    missing, unknown = [], []
    for number in numbers:
        if number in of:
            kind, _ = min(of[number])
            key = next(key for kind_, key in of[number] if kind_ is kind)
            if kind is Kind.PARKED:
                parked[f"CODE_{key}"] = parked.get(f"CODE_{key}", 0) + 1
            else:
                count[kind.name.lower()] += 1
        elif done is not None and number > done:
            count["pending"] += 1
        else:
            missing.append(at(number))
            count["unhydrated"] += number in announced
            count["misrouted"] += number in odd
    for position, ways in of.items():
        if position in numbers:
            continue
        if not numbers or position < numbers[0]:
            count["trimmed"] += min(ways)[0] is Kind.STORED
        elif position < numbers[-1]:
            unknown.append(at(position))
    doubled = {at(position) for position, ways in of.items() if len(ways) > 1}
    count |= {"missing": len(missing), "unknown": len(unknown), "duplicated": len(doubled)}
    return ShardAudit(
        SHARD, Tally(accepted=len(numbers), parked=parked, **count), tuple(missing), (), tuple(unknown)
    )


@given(
    ACCEPTED,
    ACCOUNTS,
    st.none() | st.integers(FIRST - 1, FIRST + COUNT),
    st.sets(POSITIONS),
    st.sets(POSITIONS),
)
def test_every_position_is_counted_once_and_every_error_is_listed(
    numbers: list[int],
    accounts: list[tuple[int, Kind, int]],
    done: int | None,
    announced: set[int],
    misrouted: set[int],
) -> None:
    known = accounts_of(accounts, announced)
    found = compare_shard(accepted(numbers, misrouted), known, None if done is None else at(done))
    expected = model(numbers, accounts, done, announced, misrouted)
    assert found.count == expected.count
    assert found.missing == expected.missing
    assert sorted(found.unknown) == sorted(expected.unknown)
    where: dict[str, list[str]] = {}
    for position, kind, key in accounts:
        where.setdefault(at(position), []).append(f"{kind.name}/{key}")
    assert {one.position: list(one.where) for one in found.duplicated} == {
        position: keys for position, keys in where.items() if len(keys) > 1
    }
    count = found.count
    assert count.accepted == (
        count.stored + count.repeated + sum(count.parked.values()) + count.pending + count.missing
    )
    assert count.balanced == (not (found.missing or found.duplicated or found.unknown))


@given(st.lists(st.tuples(ACCEPTED, ACCOUNTS), min_size=1, max_size=4))
def test_the_total_is_the_sum_of_the_shards(
    parts: list[tuple[list[int], list[tuple[int, Kind, int]]]],
) -> None:
    shards = tuple(
        compare_shard(accepted(numbers, set()), accounts_of(accounts, set()), None)
        for numbers, accounts in parts
    )
    whole = Audit("devices", "air", shards)
    assert whole.total.accepted == sum(len(numbers) for numbers, _ in parts)
    assert sum(whole.total.parked.values()) == sum(sum(one.count.parked.values()) for one in shards)
    assert whole.balanced == all(one.count.balanced for one in shards)
    plain = json.loads(whole.to_json())
    assert plain["balanced"] is whole.balanced
    assert plain["total"]["missing"] == sum(len(one["missing"]) for one in plain["shards"])


def test_sentinel_values_of_kcl_are_valid_checkpoints() -> None:
    here, none = accepted([5, 6, 7], set()), accounts_of([], set())
    counts = {
        word: compare_shard(here, none, word).count
        for word in ("TRIM_HORIZON", "LATEST", "AT_TIMESTAMP", "SHARD_END")
    }
    assert {word: (count.pending, count.missing) for word, count in counts.items()} == {
        "TRIM_HORIZON": (3, 0),
        "LATEST": (3, 0),
        "AT_TIMESTAMP": (3, 0),
        "SHARD_END": (0, 3),
    }


def test_all_errors_are_counted_and_listed_up_to_a_limit() -> None:
    numbers = list(range(FIRST, FIRST + MAX_POSITIONS + 50))
    found = compare_shard(accepted(numbers, set()), accounts_of([], set()), None)
    assert found.count.missing == MAX_POSITIONS + 50
    assert len(found.missing) == MAX_POSITIONS


def test_an_unreadable_object_makes_the_audit_unbalanced() -> None:
    assert Audit("devices", "air", ()).balanced
    assert not Audit("devices", "air", (), ("events/x.parquet",)).balanced


@given(POSITIONS, POSITIONS)
def test_tokens_of_test_positions_have_the_order_of_their_numbers(one: int, other: int) -> None:
    assert (position_from_token(SHARD, at(one)).order < position_from_token(SHARD, at(other)).order) == (
        one < other
    )


def since_epoch(seconds: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def test_pending_records_that_arrived_before_the_limit_are_overdue() -> None:
    here = dataclasses.replace(
        accepted([5, 6, 7, 8], set()), arrived=np.array([10_000, 9_000, 699_999, 700_000], dtype=np.int64)
    )
    allowed = Limit(timedelta(minutes=5), since_epoch(1_000))
    found = compare_shard(here, accounts_of([(5, Kind.STORED, 0)], set()), at(5), allowed)
    assert (found.count.pending, found.count.overdue, found.count.missing) == (3, 2, 0)
    assert not found.count.balanced
    assert found.waiting == Waiting(2, "1970-01-01T00:00:09.000Z", at(6), at(5))
    young = compare_shard(here, accounts_of([(5, Kind.STORED, 0)], set()), at(7), allowed)
    assert (young.count.pending, young.count.overdue, young.waiting) == (1, 0, None)
    assert compare_shard(here, accounts_of([], set()), "TRIM_HORIZON").count.balanced, (
        "without a limit none is overdue"
    )
    assert compare_shard(here, accounts_of([], set()), None, allowed).count.overdue == 0


def test_records_dropped_by_kcl_are_neither_missing_nor_pending() -> None:
    unread = np.array([False, True, True, False])
    here = dataclasses.replace(accepted([5, 6, 7, 8], set()), unread=unread)
    for checkpoint, missing, pending in ((at(5), 1, 1), ("SHARD_END", 2, 0), ("TRIM_HORIZON", 0, 2)):
        found = compare_shard(here, accounts_of([], set()), checkpoint)
        count = found.count
        assert (count.missing, count.pending, count.dropped) == (missing, pending, 2)
        assert found.dropped == (at(6), at(7))
        assert not count.balanced
    stored = compare_shard(here, accounts_of([(n, Kind.STORED, 0) for n in (5, 6, 7, 8)], set()), "SHARD_END")
    assert stored.count.balanced, "another reader of the stream may have stored them"


def test_a_misrouted_record_at_the_tip_is_not_reported_as_unread() -> None:
    here = dataclasses.replace(accepted([5, 6], {6}), arrived=np.array([1_000, 2_000], dtype=np.int64))
    allowed = Limit(timedelta(seconds=10), since_epoch(100))
    found = compare_shard(here, accounts_of([(5, Kind.STORED, 0)], set()), at(5), allowed)
    assert (found.count.missing, found.count.misrouted, found.count.overdue) == (1, 1, 0)
    assert found.waiting is None


def test_a_clock_behind_the_stream_is_corrected_by_the_latest_arrival() -> None:
    known = {SHARD: dataclasses.replace(accepted([5], set()), arrived=np.array([900_000], dtype=np.int64))}
    assert overdue_limit(timedelta(0), since_epoch(0), known).now == since_epoch(900)
    assert overdue_limit(timedelta(0), since_epoch(901), known).now == since_epoch(901)
    assert overdue_limit(timedelta(minutes=5), since_epoch(0), {}).bound == -300_000


def test_a_consumer_with_recent_writes_is_behind_and_not_absent() -> None:
    here = dataclasses.replace(accepted([5], set()), arrived=np.array([1_000], dtype=np.int64))
    allowed = Limit(timedelta(minutes=5), since_epoch(1_000))
    found = compare_shard(here, accounts_of([], set()), "TRIM_HORIZON", allowed)

    def message(stored_s: float | None, *, moved: bool | None) -> str:
        stored = None if stored_s is None else since_epoch(stored_s)
        one = with_explanation(found, allowed, stored, moved)
        assert not one.count.balanced
        assert one.waiting is not None
        return one.waiting.message

    since, stored = "1970-01-01T00:00:01.000Z", "1970-01-01T00:10:00.000Z"
    absent = f"no consumer has read shard {SHARD} since"
    behind = f"the consumer of shard {SHARD} is behind: 1 record has been pending for longer than 300 s"
    assert message(None, moved=False).startswith(f"{absent} {since}: 1 record has been pending")
    assert message(600, moved=False).startswith(f"{absent} {stored}:"), "it read until that time"
    assert message(0, moved=None).startswith(f"{absent} {since}:")
    assert message(700, moved=False).startswith(behind)
    assert message(None, moved=True) == (
        f"{behind}, the oldest arrived at {since}; its checkpoint moved during this audit"
    )
    young = dataclasses.replace(found, waiting=None)
    assert with_explanation(young, allowed, None, True) == young
