"""`HalfSpaceTrees` gives exactly the same scores as river's implementation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import anomaly, preprocessing

from anomaly.trees import HalfSpaceTrees

NAMES = ("b", "c", "a")


def rivers(X: Any, scaled: bool, **parameters: Any) -> list[float]:
    trees: Any = anomaly.HalfSpaceTrees(**parameters)
    model = preprocessing.MinMaxScaler() | trees if scaled else trees
    scores = []
    for row in X.tolist():
        x = {name: value for name, value in zip(NAMES, row, strict=True) if value == value}
        scores.append(max(float(model.score_one(x)), 0.0) if x else 0.0)
        if x:
            model.learn_one(x)
    return scores


@given(
    seed=st.integers(0, 2**32),
    missing=st.sampled_from([0.0, 0.2, 0.7]),
    scaled=st.booleans(),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 30)),
    cuts=st.lists(st.integers(0, 120), max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_scores_equal_rivers(
    seed: int, missing: float, scaled: bool, shape: tuple[int, int, int], cuts: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    X = rng.random((120, 3)) ** 2
    X[rng.random(X.shape) < missing] = math.nan
    n_trees, height, window = shape
    parameters: dict[str, Any] = {"n_trees": n_trees, "height": height, "window_size": window, "seed": seed}
    detector = HalfSpaceTrees(NAMES, scaled=scaled, **parameters)
    parts = np.split(X, sorted(cuts))
    got = np.concatenate([detector.process_many(["device"] * len(part), part) for part in parts])
    assert got.tolist() == rivers(X, scaled, **parameters)


def test_limits_equal_rivers() -> None:
    X = np.random.default_rng(1).normal(10.0, 5.0, (300, 3))
    limits = {"a": (-5.0, 30.0), "b": (0.0, 20.0)}
    parameters: dict[str, Any] = {"n_trees": 4, "window_size": 40, "seed": 3, "limits": limits}
    got = HalfSpaceTrees(NAMES, scaled=False, **parameters).process_many(["device"] * 300, X)
    assert got.tolist() == rivers(X, False, **parameters)
    assert got.max() > 0.9


def test_keys_with_different_first_features_have_different_trees() -> None:
    rng = np.random.default_rng(2)
    X = rng.random((400, 3))
    X[0, 1], X[1, :2] = math.nan, math.nan  # missing in the first rows of two devices
    keys = ["one", "other"] * 200
    parameters: dict[str, Any] = {"n_trees": 3, "height": 4, "window_size": 20, "seed": 4}
    detector = HalfSpaceTrees(NAMES, **parameters)
    got = np.concatenate([detector.process_many(keys[:77], X[:77]), np.zeros(0)])
    again = HalfSpaceTrees(NAMES, **parameters)
    again.process_many(["third"], np.ones((1, 3)))  # so that its trees are numbered differently
    again.restore(detector.snapshot())
    got = np.concatenate([got, again.process_many(keys[77:], X[77:])])
    assert got[::2].tolist() == rivers(X[::2], True, **parameters)
    assert got[1::2].tolist() == rivers(X[1::2], True, **parameters)


@pytest.mark.parametrize(
    "wrong", [{"window_size": 0}, {"window_size": 2**16}, {"n_trees": 0}, {"height": 0}, {"height": 17}]
)
def test_invalid_parameters_are_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="window_size"):
        HalfSpaceTrees(NAMES, **wrong)


def test_a_snapshot_with_other_parameters_is_ignored() -> None:
    X = np.random.default_rng(5).random((100, 3))
    one = HalfSpaceTrees(NAMES, n_trees=2, height=3, window_size=10, seed=1)
    one.process_many(["device"] * 100, X)
    for other in (
        HalfSpaceTrees(NAMES, n_trees=2, height=3, window_size=10, seed=2),
        HalfSpaceTrees(("a", "b"), n_trees=2, height=3, window_size=10, seed=1),
    ):
        empty = other.snapshot()
        other.restore(one.snapshot())
        assert other.snapshot() == empty
