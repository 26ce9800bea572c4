"""`ShardLog` against a reference model: a list."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream_app.local.moto_patches.kinesis.sequence import Numbering
from stream_app.local.moto_patches.kinesis.shard_log import ShardLog

# Per record: the increments of arrival time and ordinal, and the size.
Steps = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(0, 50)), max_size=40)


def build(steps: list[tuple[int, int, int]]) -> tuple[ShardLog, list[tuple[int, int, int, bytes]]]:
    log, plain, arrival, ordinal = ShardLog(), [], 1_000, 0
    for later, further, size in steps:
        arrival, ordinal = arrival + later, ordinal + further
        record = (ordinal, arrival, size, b"%d" % ordinal)
        log.append(*record)
        plain.append(record)
    return log, plain


@given(Steps, st.integers(-1, 170), st.integers(1, 50), st.integers(0, 400))
def test_a_read_returns_the_next_records_within_limit_and_bytes(
    steps: list[tuple[int, int, int]], after: int, limit: int, max_bytes: int
) -> None:
    log, plain = build(steps)
    expected: list[tuple[int, int, int, bytes]] = []
    used = 0
    for record in (r for r in plain if r[0] > after):
        used += record[2]
        if len(expected) == limit or (expected and used > max_bytes):
            break
        expected.append(record)
    left = [r for r in plain if r[0] > (expected[-1][0] if expected else after)]
    found = log.read(after, limit, max_bytes)
    assert found.bodies == [record[3] for record in expected]
    assert found.last == (expected[-1][0] if expected else after)
    assert found.behind == (expected[-1][1] if left else None)


@given(Steps, st.integers(990, 1_130))
def test_before_returns_the_position_of_the_first_record_not_older(
    steps: list[tuple[int, int, int]], arrival: int
) -> None:
    log, plain = build(steps)
    found = log.before(arrival)
    if found is None:
        assert all(record[1] < arrival for record in plain)
    else:
        assert [r for r in plain if r[0] > found] == [r for r in plain if r[1] >= arrival]


@given(Steps, st.integers(990, 1_130), st.integers(0, 170), st.integers(1, 50), st.integers(0, 400))
def test_a_trimmed_log_equals_a_log_without_the_old_records(
    steps: list[tuple[int, int, int]], arrival: int, ordinal: int, limit: int, max_bytes: int
) -> None:
    log, plain = build(steps)
    kept = [r for r in plain if r[1] >= arrival and r[0] >= ordinal]
    assert log.trim(arrived_before=arrival, ordinal_below=ordinal) == len(plain) - len(kept)
    fresh = ShardLog()
    for record in kept:
        fresh.append(*record)
    assert len(log) == len(kept)
    assert log.read(-1, limit, max_bytes) == fresh.read(-1, limit, max_bytes)


@given(st.integers(10**12, 2 * 10**12), st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 9_999))
def test_sequence_numbers_are_long_and_ordered_by_ordinal(
    created: int, one: int, other: int, shard: int
) -> None:
    numbering = Numbering(created)
    number = numbering.number(one, shard)
    assert len(str(number)) == 56
    assert (numbering.ordinal(number), numbering.shard(number)) == (one, shard)
    assert (one < other) == (number < numbering.number(other, shard) and one != other)
    assert Numbering(created + 1).ordinal(number) < 0
