"""Deduplication of IDs per device, against a model that processes one row at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly.kernels.prefetch import CACHED
from stream_app.pipeline.state.deduplication import RecentIds, id_hashes
from stream_app.pipeline.state.key_index import KeyIndex
from stream_app.pipeline.state.packing import compress_state, unpack
from tests.samples import splits
from tests.unit.columns import texts, times

_ids = st.one_of(st.none(), st.sampled_from("12345"))


_rows = st.lists(st.tuples(st.sampled_from("ab"), _ids, st.booleans()), max_size=40)


class _ReferenceIds:
    """Reference model: the IDs of accepted events among the last `limit` events of a device."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._history: dict[str, list[str | None]] = {}

    def row(self, key: str, event_id: str | None, accepted: bool) -> bool:
        history = self._history.setdefault(key, [])
        known = event_id is not None and event_id in history[-self._limit :]
        history.append(event_id if accepted and not known else None)
        return known


def reloaded(seen: RecentIds, limit: int, devices: int) -> RecentIds:
    every = np.arange(devices)
    other = RecentIds(limit)
    other.load(unpack(compress_state(seen.dump(devices))), every, every)
    return other


@given(_rows, st.integers(1, 40), st.data())
def test_an_id_is_remembered_for_the_configured_number_of_events(
    rows: list[tuple[str, str | None, bool]], limit: int, data: st.DataObject
) -> None:
    seen, slow, devices = RecentIds(limit), _ReferenceIds(limit), KeyIndex()
    for part in data.draw(splits(rows)):
        numbers = devices.slots(key for key, *_ in part)
        marks, accepted = id_hashes(texts(i for _, i, _ in part)), np.array([a for *_, a in part], dtype=bool)
        for _ in range(data.draw(st.integers(0, 2), label="undone attempts")):
            guess = np.array(data.draw(st.lists(st.booleans(), min_size=len(part), max_size=len(part))), bool)
            seen.undo(seen.check_and_add(numbers, marks, guess))
        repeats = seen.check_and_add(numbers, marks, accepted)
        assert repeats.repeated.tolist() == [slow.row(*row) for row in part]
        if data.draw(st.booleans()):
            seen = reloaded(seen, limit, len(devices))


@given(_rows, st.integers(1, 9), st.data())
def test_removed_rows_are_not_remembered(
    rows: list[tuple[str, str | None, bool]], limit: int, data: st.DataObject
) -> None:
    seen, slow, devices = RecentIds(limit), RecentIds(limit), KeyIndex()
    for part in data.draw(splits(rows)):
        numbers, marks = devices.slots(key for key, *_ in part), id_hashes(texts(i for _, i, _ in part))
        repeats = seen.check_and_add(numbers, marks, np.ones(len(part), dtype=bool))
        givers = set(repeats.originals.tolist())
        wrong = [
            at for at, row in enumerate(part) if not row[2] and at not in givers and not repeats.repeated[at]
        ]
        seen.remove(repeats, np.array(wrong, dtype=np.int64))
        slow.check_and_add(numbers, marks, np.array([at not in wrong for at in range(len(part))], dtype=bool))
        assert compress_state(seen.dump(len(devices))) == compress_state(slow.dump(len(devices)))


@given(st.lists(st.integers(1, 6), max_size=60), st.integers(1, 40))
def test_similar_hashes_are_distinguished(marks: list[int], limit: int) -> None:
    alike = np.array(marks, dtype=np.int64) << 40
    repeats = RecentIds(limit).check_and_add(
        np.zeros(len(marks), np.int64), alike, np.ones(len(marks), dtype=bool)
    )
    slow = _ReferenceIds(limit)
    assert repeats.repeated.tolist() == [slow.row("one", str(mark), True) for mark in marks]


def test_many_devices_are_deduplicated_independently() -> None:
    devices, times, limit = 9_000, 21, 16  # enough IDs for the kernel to prefetch
    rng, seen = np.random.default_rng(7), RecentIds(limit)
    numbers = np.array([rng.permutation(devices) for _ in range(times)])
    marks, accepted = rng.integers(1, 30, numbers.shape), np.ones(devices, dtype=bool)
    again = np.array(
        [seen.check_and_add(*row, accepted).repeated for row in zip(numbers, marks, strict=True)]
    )
    assert 8 * limit * devices > CACHED
    for device in (0, 1, 4_500, devices - 1):
        mine, slow = numbers == device, _ReferenceIds(limit)
        assert again[mine].tolist() == [slow.row("one", str(mark), True) for mark in marks[mine].tolist()]
    assert again.any()


@given(st.lists(st.sampled_from("abc"), max_size=80), st.integers(1, 20), st.integers(1, 20))
def test_a_snapshot_loaded_with_another_limit_keeps_the_smaller_number_of_ids(
    keys: list[str], limit: int, later: int
) -> None:
    seen, devices = RecentIds(limit), KeyIndex()
    numbers = devices.slots(keys)
    seen.check_and_add(numbers, id_hashes(texts(map(str, range(len(keys))))), np.ones(len(keys), dtype=bool))
    every, other = np.arange(len(devices)), RecentIds(later)
    other.load(unpack(compress_state(seen.dump(len(devices)))), every, every)
    for key in set(keys):
        mine = [str(at) for at, other_key in enumerate(keys) if other_key == key]
        for back, event_id in enumerate(reversed(mine), start=1):
            repeats = other.check_and_add(
                devices.slots([key]), id_hashes(texts([event_id])), np.ones(1, dtype=bool)
            )
            assert repeats.repeated.tolist() == [back <= min(limit, later)]
            other.undo(repeats)


@pytest.mark.parametrize(
    "ids",
    [np.array([1, 2], dtype=np.int64), times([1, 2]), texts(["x", "y"]), texts([1, 2**60])],
    ids=["whole numbers", "times", "text", "numbers that may be missing"],
)
def test_ids_of_every_kind_survive_a_snapshot(ids: np.ndarray[Any, Any]) -> None:
    seen, one = RecentIds(9), np.zeros(2, dtype=np.int64)
    assert seen.check_and_add(one, id_hashes(ids), np.ones(2, dtype=bool)).repeated.tolist() == [False, False]
    assert reloaded(seen, 9, 1).check_and_add(
        one, id_hashes(ids), np.ones(2, dtype=bool)
    ).repeated.tolist() == [
        True,
        True,
    ]


@given(st.lists(st.one_of(st.none(), st.text(max_size=40), st.integers(-(2**63), 2**63 - 1)), unique=True))
def test_different_ids_have_different_hashes(ids: list[Any]) -> None:
    marks = id_hashes(texts(ids)).tolist()
    assert len(set(marks)) == len(ids) - ({None, ""} <= set(ids))
    assert [mark == 0 for mark in marks] == [name in (None, "") for name in ids]
