"""Key tables: the size limit holds, and eviction depends only on the order of rows."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly import laws
from anomaly.keyed_state.table import Table
from anomaly.nearest import NearestValue
from anomaly.river import StandardDeviation
from anomaly.trees import HalfSpaceTrees
from tests.unit.detectors import FEATURES, quick, rows

BOUNDED: dict[str, Callable[[], Any]] = {
    "NearestValue": lambda: quick(max_keys=2),
    "HalfSpaceTrees": lambda: HalfSpaceTrees(FEATURES, n_trees=2, height=3, window_size=4, max_keys=2),
}
# Keys depend on each other if one can evict another; all other laws still hold.
HOLD = [
    laws.batches_equal_single_rows,
    laws.splits_do_not_matter,
    laws.runs_are_repeatable,
    laws.snapshots_are_exact,
]


@pytest.mark.parametrize("law", HOLD, ids=lambda law: law.__name__)
@pytest.mark.parametrize("make", BOUNDED.values(), ids=BOUNDED)
@settings(max_examples=25, deadline=None)
@given(rows=rows(), rng=st.randoms(use_true_random=False))
def test_laws_hold_under_eviction(
    make: laws.Make, law: laws.Law, rows: laws.Rows, rng: random.Random
) -> None:
    law(make, rows, rng)


@given(keys=st.lists(st.sampled_from("abcdef"), max_size=40), most=st.integers(1, 4), data=st.data())
def test_the_least_recently_seen_key_is_evicted(keys: list[str], most: int, data: st.DataObject) -> None:
    table = Table(most, {"n": ((), np.int64)})
    cut = data.draw(st.integers(0, len(keys)))
    parts = [table.take(part) for part in (keys[:cut], keys[cut:])]
    fresh = np.concatenate([part[1] for part in parts])
    held: list[str] = []
    for key, began in zip(keys, fresh.tolist(), strict=True):
        assert began == (key not in held)
        held = [*(other for other in held if other != key), key][-most:]
    places = table.find(held)
    assert len(table) == len(held)
    assert sorted(places.tolist()) == list(range(len(held)))
    assert (table.find([key for key in "abcdef" if key not in held]) == -1).all()


def test_an_evicted_key_starts_without_history() -> None:
    detector, fresh = (NearestValue(["a"], warm_up=0, max_keys=2) for _ in range(2))
    X = np.array([[1.0], [2.0], [5.0]])
    detector.process_many(["a"] * 3, X)
    detector.process_many(["b", "c"], X[:2])
    assert detector.process_many(["a"] * 3, X).tolist() == fresh.process_many(["a"] * 3, X).tolist()


def test_restoring_two_parents_keeps_the_most_recently_seen_keys() -> None:
    def parent(keys: list[str]) -> bytes:
        detector = NearestValue(["a"], max_keys=4)
        detector.process_many(keys, np.arange(float(len(keys)))[:, None])
        return detector.snapshot()

    old, new = parent(["a", "b"]), parent(["x", "x", "x", "c", "d"])
    one, other = (NearestValue(["a"], max_keys=4) for _ in range(2))
    for detector, states in ((one, (old, new)), (other, (new, old))):
        for state in states:
            detector.restore(state)
        detector.process_many(["e"], np.ones((1, 1)))  # a is the least recently seen key
    held = [name for name in "abxcde" if one._table.find([name]) >= 0]
    assert held == [name for name in "abxcde" if other._table.find([name]) >= 0] == ["x", "c", "d", "e"]


def test_a_table_holds_at_least_one_key() -> None:
    with pytest.raises(ValueError, match="max_keys is 0"):
        Table(0, {})


MANY: dict[str, Callable[[], Any]] = {
    "NearestValue": lambda: NearestValue(FEATURES),
    "HalfSpaceTrees": lambda: HalfSpaceTrees(FEATURES),
    "StandardDeviation": lambda: StandardDeviation(FEATURES),
}


@pytest.mark.parametrize("make", MANY.values(), ids=MANY)
def test_the_memory_per_key_is_as_documented(make: Callable[[], Any]) -> None:
    devices = [f"device {number}" for number in range(1024)]
    detector = make()
    detector.process_many(devices[:1], np.ones((1, 3)))  # compiled before memory is counted
    tracemalloc.start()
    detector.process_many(devices, np.ones((1024, 3)))
    arrays = [
        detector._table._seen,
        *detector._table.arrays.values(),
    ]  # which are mapped outside Python's memory
    taken = tracemalloc.get_traced_memory()[0] / 1024 + sum(array.nbytes for array in arrays) / 1024
    tracemalloc.stop()
    assert detector.bytes_per_key <= taken <= detector.bytes_per_key + 200
    assert len(detector.snapshot()) / 1024 <= detector.bytes_per_key + 50


def test_a_snapshot_does_not_contain_unused_slots() -> None:
    detector = NearestValue(FEATURES)
    detector.process_many(["a"] * 3, np.ones((3, 3)))
    assert len(detector.snapshot()) < detector.bytes_per_key / 2
