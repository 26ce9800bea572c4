"""A detector that raises on a row affects only that row, independent of batching."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import anomaly

from anomaly.alerting import Assessment
from anomaly.detector import FloatMatrix, FloatVector, Times
from anomaly.nearest import NearestValue
from anomaly.river import RiverDetector
from stream_app.model.event import Event
from stream_app.model.record import Batch
from stream_app.pipeline.score import score, unscored
from tests.samples import Drift

EVENT = Event(name="reading", key="device", features=("a",), detector=Drift)
POISON = 13.0


class Choosy(Drift):
    """Refuses a batch before it learns any of it, as detectors must."""

    def process_many(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector:
        if (X == POISON).any():
            raise ArithmeticError("that value again")
        return super().process_many(keys, X, times)


class ChoosyAndExplaining(NearestValue):
    def assess_many(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> Assessment:
        raise ArithmeticError("never")


def batch(values: Sequence[float]) -> Batch:
    columns = {
        "device": np.array([f"d{at % 3}" for at in range(len(values))], dtype=object),
        "a": np.array(values, np.float64),
    }
    return Batch("reading", columns, np.arange(len(values)))


@given(
    st.lists(st.sampled_from([1.0, 2.5, POISON, 40.0]), min_size=1, max_size=40),
    st.lists(st.integers(0, 40), max_size=4),
)
def test_a_row_on_which_the_detector_raises_is_neither_scored_nor_learnt(
    values: list[float], cuts: list[int]
) -> None:
    whole = batch(values)
    good = np.array(values) != POISON
    expected = np.full(len(values), np.nan)
    if good.any():
        expected[good] = score(whole.take(good), EVENT, Drift())["score"]
    detector, got = Choosy(), []
    ends = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    for begin, end in pairwise(ends):
        if begin < end:
            got.append(score(whole.take(slice(begin, end)), EVENT, detector))
    scores = np.concatenate([part["score"] for part in got])
    assert scores.tobytes() == expected.tobytes()
    assert sum(map(unscored, got)) == (~good).sum()
    assert not np.concatenate([part["anomaly"] for part in got])[~good].any()


def test_a_detector_that_explains_may_raise_too() -> None:
    judged = score(batch([1.0, 2.0]), EVENT, ChoosyAndExplaining(["a"]))
    assert np.isnan(judged["score"]).all()
    assert judged["explanation"].tolist() == [None, None]
    assert unscored(judged) == 2


class Brittle:
    """A model of a user's that breaks off in the middle of learning."""

    def __init__(self) -> None:
        self.learnt: list[float] = []

    def score_one(self, x: dict[str, float]) -> float:
        return float(len(self.learnt))

    def learn_one(self, x: dict[str, float]) -> None:
        self.learnt.append(x["a"])
        if x["a"] == POISON:
            raise ZeroDivisionError


def test_a_river_model_that_raises_loses_only_that_row() -> None:
    X = np.array([[1.0], [POISON], [2.0], [3.0]])
    whole = RiverDetector(Brittle, ("a",), 1.0).process_many(["k"] * 4, X)
    parts = RiverDetector(Brittle, ("a",), 1.0)
    ones = [parts.process_many(["k"], X[at : at + 1]).item() for at in range(4)]
    np.testing.assert_array_equal(whole, ones)
    np.testing.assert_array_equal(whole, [0.0, np.nan, 2.0, 3.0])


def test_the_least_recently_used_model_is_evicted() -> None:
    def make() -> RiverDetector:
        return RiverDetector(lambda: anomaly.LODA(seed=1), ("a",), 1.0, max_keys=2)

    detector, X = make(), np.arange(6.0)[:, None]
    detector.process_many(["a", "a", "b", "a", "c", "c"], X)
    kept = make()
    kept.restore(detector.snapshot())
    after = kept.process_many(["a", "b"], X[:2])
    assert after[0] == detector.process_many(["a"], X[:1])[0]
    assert after[1] == make().process_many(["b"], X[1:2])[0]


@pytest.mark.parametrize("odd", [np.inf, -np.inf, 1e31, np.nan])
def test_unusable_values_are_missing(odd: float) -> None:
    X = np.random.default_rng(1).normal(size=(300, 1))
    spoilt, gone = X.copy(), X.copy()
    spoilt[150], gone[150] = odd, np.nan
    one, other = NearestValue(["a"]), NearestValue(["a"])
    assert one.process_many(["k"] * 300, spoilt).tolist() == other.process_many(["k"] * 300, gone).tolist()
    assert one.snapshot() == other.snapshot()


def test_a_feature_that_is_not_a_number_is_missing_and_does_not_fail() -> None:
    seen: list[list[float]] = []

    class Listening(Drift):
        def process_many(
            self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None
        ) -> FloatVector:
            seen.append(X[:, 0].tolist())
            return super().process_many(keys, X, times)

    column = np.array(["x", "1.5", None, 2, [3], 10**400, True], dtype=object)
    rows = Batch("reading", {"device": np.full(7, "d", dtype=object), "a": column}, np.arange(7))
    assert len(score(rows, EVENT, Listening())["score"]) == 7
    np.testing.assert_array_equal(seen[0], [np.nan, 1.5, np.nan, 2.0, np.nan, np.nan, 1.0])
    score(rows.only(["device"]), EVENT, Listening())
    assert np.isnan(seen[1]).all()
