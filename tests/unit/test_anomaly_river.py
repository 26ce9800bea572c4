"""The detectors are river estimators: river's checks pass, and they work in its pipelines and filters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import anomaly, base, checks, compose

from anomaly.nearest import NearestValue
from anomaly.river import StandardDeviation
from anomaly.trees import HalfSpaceTrees
from tests.unit.detectors import FEATURES, random_rows

ESTIMATORS: dict[str, Callable[[], Any]] = {
    "NearestValue": lambda: NearestValue(warm_up=5),
    "StandardDeviation": lambda: StandardDeviation(warm_up=5),
    "HalfSpaceTrees": lambda: HalfSpaceTrees(n_trees=3, height=4, window_size=20),
}
each = pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)


def as_dicts(X: Any) -> list[dict[str, float]]:
    return [
        {name: value for name, value in zip(FEATURES, row, strict=True) if value == value}
        for row in X.tolist()
    ]


def dataset(_model: base.Estimator, scale: int = 1) -> Iterator[list[tuple[dict[str, float], bool]]]:
    rows = as_dicts(random_rows(200 * scale, 1, seed=3, odd=0.0).X)
    yield [(x, False) for x in rows]


@each
def test_rivers_own_checks_pass(make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_yield_datasets", dataset)  # river's data sets need a download
    done = []
    for check in checks.yield_checks(make()):
        if check.__name__ != "check_roc_auc":  # needs labels
            check(make())
            done.append(check.__name__)
    assert len(done) > 20


@each
@given(seed=st.integers(0, 2**32), cut=st.integers(0, 60))
@settings(max_examples=15, deadline=None)
def test_single_rows_and_batches_give_the_same_results(make: Callable[[], Any], seed: int, cut: int) -> None:
    X = random_rows(60, 1, seed, odd=0.0).X
    table = pd.DataFrame(X, columns=list(FEATURES))
    ones, expected = make(), []
    for x in as_dicts(X):
        expected.append(ones.score_one(x))
        ones.learn_one(x)
    manys, keyed = make(), make()
    manys.learn_many(table[:cut])
    manys.learn_many(table[cut:])
    keyed._learn_names(FEATURES)
    columns = [FEATURES.index(name) for name in keyed._names]
    got = keyed.process_many(["device"] * 60, X[:, columns])
    assert got.tolist() == expected
    assert manys.snapshot() == ones.snapshot()
    assert manys.score_many(table).tolist() == [ones.score_one(x) for x in as_dicts(X)]
    assert manys.snapshot() == ones.snapshot()


@each
def test_it_works_in_a_pipeline_and_a_filter(make: Callable[[], Any]) -> None:
    pipeline = compose.Pipeline(
        compose.Select("pm25", "no2"), anomaly.QuantileFilter(make(), q=0.95, protect_anomaly_detector=False)
    )
    flagged = 0
    for x in as_dicts(random_rows(300, 1, seed=4, odd=0.0).X):
        flagged += bool(pipeline["QuantileFilter"].classify(pipeline.score_one(x)))
        pipeline.learn_one(x)
    assert 0 < flagged < 300


@each
def test_none_is_a_missing_value(make: Callable[[], Any]) -> None:
    one, other = make(), make()
    for x in as_dicts(random_rows(50, 1, seed=5, odd=0.0).X):
        one.learn_one(x)
        other.learn_one(x)
    one.learn_one({"pm25": None, "no2": 1.0})
    other.learn_one({"no2": 1.0})
    assert one.snapshot() == other.snapshot()


def test_a_new_feature_is_added_with_missing_past_values() -> None:
    detector = NearestValue(warm_up=0)
    for value in (1.0, 2.0, 3.0):
        detector.learn_one({"a": value})
    for value in (1.0, 3.0, 2.0):
        detector.learn_one({"a": value, "b": value})
    assert detector.score_one({"b": 900.0}) > detector.score_one({"b": 3.5}) > 0.0
    assert np.isfinite(detector.score_one({"c": 1.0}))
