"""Every detector obeys every law, and the laws detect faulty detectors."""

from __future__ import annotations

import importlib
import pkgutil
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import anomaly
from anomaly import laws
from anomaly.detector import FloatMatrix, FloatVector, Keep, Times
from anomaly.river import StandardDeviation
from tests.unit.detectors import DETECTORS, FEATURES, random_rows, rows


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("make", DETECTORS.values(), ids=DETECTORS)
@settings(max_examples=25, deadline=None)
@given(rows=rows(), rng=st.randoms(use_true_random=False))
def test_detectors_obey_the_laws(make: laws.Make, law: laws.Law, rows: laws.Rows, rng: random.Random) -> None:
    law(make, rows, rng)


def test_every_shipped_detector_is_tested() -> None:
    modules = [
        importlib.import_module(f"anomaly.{info.name}") for info in pkgutil.iter_modules(anomaly.__path__)
    ]
    found = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and all(hasattr(value, name) for name in ("process_many", "snapshot", "restore"))
        and not getattr(value, "_is_protocol", False)
    }
    assert found == {kind for make in DETECTORS.values() for kind in type(make()).__mro__} & found
    assert len(found) >= 4


@pytest.mark.parametrize("name", ["StandardDeviation", "HalfSpaceTrees", "LODA"])
def test_an_outlier_scores_above_usual_values(name: str) -> None:
    usual = random_rows(400, 1, seed=1, odd=0.0)
    usual.X[:] = 0.4 + 0.1 * np.tanh(usual.X - 1.0)
    detector = DETECTORS[name]()
    before = detector.process_many(*usual)[100:]
    outlier = detector.process_many(usual.keys[:1], np.full((1, len(FEATURES)), 0.99))[0]
    assert outlier > np.quantile(before, 0.95)


# Faulty detectors that the laws must detect.


class Faulty(StandardDeviation):
    def __init__(self) -> None:
        super().__init__(FEATURES, warm_up=2)


class ScoresAgainstTheStateBeforeTheBatch(Faulty):
    def process_many(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector:
        scores = np.zeros(len(keys))
        for i, key in enumerate(keys):
            frozen = Faulty()
            frozen.restore(self.snapshot())
            scores[i] = frozen.process_many([key], X[i : i + 1])[0]
        super().process_many(keys, X)
        return scores


class OneStateForAllKeys(Faulty):
    def process_many(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector:
        return super().process_many(["all"] * len(keys), X)


class UsesRandomness(Faulty):
    def process_many(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector:
        return super().process_many(keys, X) * random.random()


class PropagatesMissingValues(Faulty):
    def process_many(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector:
        scores: FloatVector = super().process_many(keys, X) + 0.0 * X.sum(axis=1)
        return scores


class ScoresEverythingHigh(Faulty):
    def process_many(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector:
        return super().process_many(keys, X) + 1.0


class ModifiesItsInput(Faulty):
    def process_many(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector:
        X[np.isnan(X)] = 0.0
        return super().process_many(keys, X)


class GrowsWithoutBound(Faulty):
    def __init__(self) -> None:
        super().__init__()
        self._hoard = b""

    def process_many(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector:
        self._hoard += bytes(8 * len(keys))
        return super().process_many(keys, X)

    def snapshot(self) -> bytes:
        return super().snapshot() + self._hoard


class DependsOnTheUnit(Faulty):
    scale_free = (1e-15, 1e23)

    def process_many(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector:
        return np.where(np.abs(np.nan_to_num(X)).max(axis=1, initial=0.0) > 1.0, 1.0, 0.0)


class LosesStateOnRestore(Faulty):
    def restore(self, state: bytes, keep: Keep = lambda _key: True) -> None:
        pass


class RestoresExcludedKeys(Faulty):
    def restore(self, state: bytes, keep: Keep = lambda _key: True) -> None:
        super().restore(state)


class DiscardsStateOnRestore(Faulty):
    def restore(self, state: bytes, keep: Keep = lambda _key: True) -> None:
        self._table = type(self)()._table
        super().restore(state, keep)


class IgnoresKeyNumbers(Faulty):
    def process_many(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector:
        return super().process_many(list(keys), X)


BROKEN: list[tuple[laws.Make, laws.Law]] = [
    (ScoresAgainstTheStateBeforeTheBatch, laws.batches_equal_single_rows),
    (ScoresAgainstTheStateBeforeTheBatch, laws.splits_do_not_matter),
    (OneStateForAllKeys, laws.keys_are_independent),
    (UsesRandomness, laws.runs_are_repeatable),
    (PropagatesMissingValues, laws.scores_are_finite),
    (ScoresEverythingHigh, laws.constant_series_score_zero),
    (ModifiesItsInput, laws.inputs_are_not_shared),
    (GrowsWithoutBound, laws.memory_is_bounded),
    (DependsOnTheUnit, laws.scale_does_not_matter),
    (LosesStateOnRestore, laws.snapshots_are_exact),
    (RestoresExcludedKeys, laws.splitting_keys_is_lossless),
    (DiscardsStateOnRestore, laws.restoring_keeps_other_keys),
    (IgnoresKeyNumbers, laws.forgotten_keys_start_unseen),
]


@pytest.mark.parametrize(("make", "law"), BROKEN, ids=lambda part: part.__name__)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_the_laws_detect_a_faulty_detector(make: laws.Make, law: laws.Law) -> None:
    with pytest.raises((AssertionError, ValueError)):  # ValueError: it wrote into a read-only array
        holds_for_five_samples(make, law)


def holds_for_five_samples(make: laws.Make, law: laws.Law) -> None:
    for seed in range(5):
        law(make, random_rows(40, 4, seed), random.Random(seed))


def test_every_law_detects_a_faulty_detector() -> None:
    assert {law for _, law in BROKEN} == set(laws.LAWS)
