"""Segment boundaries: rule 1 of docs/architecture.md."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.consumer.segments import Piece, Segmenter, chunks
from tests.samples import splits

SECONDS = 60
BUCKET = SECONDS * 1_000
_arrivals = st.lists(
    st.one_of(st.integers(0, 6 * BUCKET), st.sampled_from([0, BUCKET - 1, BUCKET, BUCKET + 1, 2 * BUCKET])),
    max_size=40,
)
_limits = st.integers(1, 6)
_sizes = st.one_of(st.integers(0, 9), st.just(40))
_sized = st.lists(st.tuples(st.sampled_from([0, 1, BUCKET, 2 * BUCKET]), _sizes), max_size=40)
_bytes = st.integers(1, 30)


def ends_by_the_rule(
    arrivals: list[int], limit: int, sizes: list[int] | None = None, limit_bytes: int = 1
) -> list[int]:
    """Reference model of the rule: the number of records after which each segment ends."""
    ends: list[int] = []
    first = 0
    sizes = sizes if sizes is not None else [0] * len(arrivals)
    for at, arrived in enumerate(arrivals):
        if at > first and arrived // BUCKET > arrivals[first] // BUCKET:
            ends.append(at)
            first = at
        if at + 1 - first == limit or sum(sizes[first : at + 1]) >= limit_bytes:
            ends.append(at + 1)
            first = at + 1
    return ends


def vector(sizes: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(sizes, dtype=np.int64)


def ends_of(pieces: list[Piece], start: int = 0) -> list[int]:
    return [start + piece.stop for piece in pieces if piece.closes]


@given(_arrivals, _limits)
def test_a_segment_ends_according_to_the_rule(arrivals: list[int], limit: int) -> None:
    segmenter = Segmenter(SECONDS, limit)
    ends = ends_of(segmenter.cut(arrivals))
    assert ends == ends_by_the_rule(arrivals, limit)
    assert segmenter.open == (len(arrivals) > (ends[-1] if ends else 0))


@given(_arrivals, _limits, st.data())
def test_segments_do_not_depend_on_how_arrivals_are_split_into_calls(
    arrivals: list[int], limit: int, data: st.DataObject
) -> None:
    segmenter, ends, start = Segmenter(SECONDS, limit), list[int](), 0
    for part in data.draw(splits(arrivals)):
        ends += ends_of(segmenter.cut(part), start)
        start += len(part)
    assert ends == ends_by_the_rule(arrivals, limit)


@given(_arrivals, _limits, st.data())
def test_reading_from_after_a_segment_gives_the_same_later_segments(
    arrivals: list[int], limit: int, data: st.DataObject
) -> None:
    ends = ends_by_the_rule(arrivals, limit)
    begin = data.draw(st.sampled_from([0, *ends]))
    again = ends_of(Segmenter(SECONDS, limit).cut(arrivals[begin:]), begin)
    assert again == [end for end in ends if end > begin]


@given(_sized, _limits, _bytes, st.data())
def test_the_byte_limit_does_not_depend_on_how_records_are_split_into_calls(
    records: list[tuple[int, int]], limit: int, limit_bytes: int, data: st.DataObject
) -> None:
    ends = ends_by_the_rule([at for at, _ in records], limit, [size for _, size in records], limit_bytes)
    segmenter, found, start = Segmenter(SECONDS, limit, limit_bytes), list[int](), 0
    for part in data.draw(splits(records)):
        found += ends_of(segmenter.cut([at for at, _ in part], vector([size for _, size in part])), start)
        start += len(part)
    assert found == ends
    begin = data.draw(st.sampled_from([0, *ends]))  # a reading that begins after a segment
    rest = records[begin:]
    again = Segmenter(SECONDS, limit, limit_bytes).cut(
        [at for at, _ in rest], vector([size for _, size in rest])
    )
    assert ends_of(again, begin) == [end for end in ends if end > begin]


def test_the_record_that_reaches_the_byte_limit_is_the_segments_last() -> None:
    segmenter = Segmenter(SECONDS, 99, 10)
    assert segmenter.cut([0, 0, 0], vector([4, 5, 1])) == [Piece(0, 3, True)]
    assert segmenter.cut([0, 0], vector([9, 99])) == [Piece(0, 2, True)]
    assert segmenter.cut([0, 0], vector([99, 9])) == [Piece(0, 1, True), Piece(1, 2, False)]


@given(st.lists(_sizes, max_size=30), _bytes, st.data())
def test_chunks_cover_a_piece_and_only_a_single_record_exceeds_the_limit(
    sizes: list[int], limit: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(sizes)))
    stop = data.draw(st.integers(start, len(sizes)))
    at = start
    for begin, end in chunks(vector(sizes), start, stop, limit):
        assert begin == at < end
        assert sum(sizes[begin:end]) <= limit or end == begin + 1
        assert end == stop or sum(sizes[begin : end + 1]) > limit
        at = end
    assert at == stop


@given(st.lists(_arrivals, max_size=4), _limits)
def test_pieces_cover_the_records_in_order(calls: list[list[int]], limit: int) -> None:
    segmenter = Segmenter(SECONDS, limit)
    for arrivals in calls:
        begun = segmenter.open
        at = 0
        for piece in segmenter.cut(arrivals):
            assert piece.start == at <= piece.stop
            assert piece.stop > piece.start or (piece.closes and begun)
            at, begun = piece.stop, not piece.closes
        assert at == len(arrivals)


def test_an_earlier_arrival_does_not_end_a_segment() -> None:
    assert Segmenter(SECONDS, 99).cut([BUCKET, 0, BUCKET + 5, 1]) == [Piece(0, 4, False)]


def test_the_bucket_is_that_of_the_first_record_even_when_later_arrivals_are_earlier() -> None:
    # The second record arrived a bucket earlier; the third is in the first one's bucket, so nothing has ended.
    assert Segmenter(SECONDS, 99).cut([BUCKET, 0, 2 * BUCKET - 1, 2 * BUCKET]) == [
        Piece(0, 3, True),
        Piece(3, 4, False),
    ]


def test_the_first_record_of_a_call_may_end_the_segment_before_it() -> None:
    segmenter = Segmenter(SECONDS, 99)
    segmenter.cut([0])
    assert segmenter.cut([BUCKET]) == [Piece(0, 0, True), Piece(0, 1, False)]


def test_a_segment_at_the_limit_is_closed_by_its_last_record() -> None:
    segmenter = Segmenter(SECONDS, 2)
    assert segmenter.cut([0, 0]) == [Piece(0, 2, True)]
    assert not segmenter.open


@pytest.mark.parametrize(
    ("now", "overdue"), [(BUCKET - 1, False), (BUCKET, False), (BUCKET + 99, False), (BUCKET + 100, True)]
)
def test_a_segment_is_overdue_when_its_bucket_has_passed_with_a_margin(now: int, overdue: bool) -> None:
    segmenter = Segmenter(SECONDS, 99)
    assert not segmenter.overdue(now, 100)
    segmenter.cut([5])
    assert segmenter.overdue(now, 100) is overdue
    segmenter.close()
    assert not segmenter.overdue(now, 100)
