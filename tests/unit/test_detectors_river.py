"""River-based detectors beyond the laws: scoring, snapshots and safe unpickling."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import anomaly, preprocessing

from anomaly import laws
from anomaly.detector import Detector, StateError
from anomaly.keyed_state.container import seal_parts, unseal_parts
from anomaly.keyed_state.pickles import names_in, pickled, unpickled
from anomaly.river import RiverDetector, StandardDeviation, with_river
from tests.unit.detectors import DETECTORS, FEATURES, random_rows, trees


@given(seed=st.integers(0, 2**32), devices=st.sampled_from([1, 48]))
@settings(max_examples=20, deadline=None)
def test_standard_deviation_equals_rivers(seed: int, devices: int) -> None:
    data = random_rows(150, devices, seed, odd=0.0)
    models: dict[tuple[str, int], Any] = {
        (key, j): anomaly.StandardAbsoluteDeviation() for key in data.keys for j in range(len(FEATURES))
    }
    seen = dict.fromkeys(data.keys, 0)
    expected = []
    for key, row in zip(data.keys, data.X.tolist(), strict=True):
        of_key = [models[key, j] for j in range(len(FEATURES))]
        scores = [model.score_one(None, x) for model, x in zip(of_key, row, strict=True)]
        expected.append(max(scores) if seen[key] >= 4 else 0.0)
        seen[key] += 1
        for model, x in zip(of_key, row, strict=True):
            model.learn_one(None, x)
    got = StandardDeviation(FEATURES, warm_up=4).process_many(*data)
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_each_feature_warms_up_independently() -> None:
    X = np.array([[1.0, math.nan], [2.0, math.nan], [3.0, 5.0], [99.0, 500.0]])
    scores = StandardDeviation(("a", "b"), warm_up=2).process_many(["k"] * 4, X)
    assert scores[:2].tolist() == [0.0, 0.0]
    assert scores[2] == pytest.approx(1.5 / math.sqrt(0.5))
    assert scores[3] == pytest.approx(97.0)  # from `a` alone: `b` has one value


def test_a_river_model_scores_and_learns_row_by_row() -> None:
    data = random_rows(60, 1, seed=2, odd=0.0)
    model, expected = trees(), []
    for row in data.X.tolist():
        x = dict(zip(FEATURES, row, strict=True))
        expected.append(float(model.score_one(x)))
        model.learn_one(x)
    got = RiverDetector(trees, FEATURES, 0.9).process_many(*data)
    assert got.tolist() == expected
    assert max(expected) > 0.0


class Spy:
    """Logs its calls and returns a fixed score."""

    fixed_score: float = 1.0

    def __init__(self) -> None:
        self.log: list[tuple[str, dict[str, float]]] = []

    def score_one(self, x: dict[str, float]) -> float:
        self.log.append(("score", x))
        return self.fixed_score

    def learn_one(self, x: dict[str, float]) -> None:
        self.log.append(("learn", x))


def test_missing_features_are_omitted_and_empty_rows_are_not_learnt() -> None:
    spies: list[Spy] = []

    def factory() -> Spy:
        spies.append(Spy())
        return spies[-1]

    detector = RiverDetector(factory, ("a", "b"), 1.0, warm_up=1)
    X = np.array([[1.0, math.nan], [math.nan, math.inf], [1e200, 2.0]])
    assert detector.process_many(["k"] * 3, X).tolist() == [0.0, 0.0, 1.0]
    assert spies[-1].log == [("learn", {"a": 1.0}), ("score", {"b": 2.0}), ("learn", {"b": 2.0})]


@pytest.mark.parametrize("fixed_score", [math.nan, math.inf, -math.inf, -0.5, -0.0])
def test_invalid_scores_of_a_model_become_0(fixed_score: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Spy, "fixed_score", fixed_score)
    score = RiverDetector(Spy, ("a",), 1.0).process_many(["k"], np.ones((1, 1)))
    assert math.copysign(1.0, score[0]) == 1.0
    assert score[0] == 0.0


def test_a_detector_factory_has_the_name_of_its_model() -> None:
    factory = with_river(trees, threshold=0.8, warm_up=9)
    detector = factory(FEATURES)
    assert isinstance(detector, Detector)
    assert (factory.__name__, detector.threshold) == ("HalfSpaceTrees", 0.8)


SUPERVISED: dict[str, Callable[[], Any]] = {
    "deviation": anomaly.StandardAbsoluteDeviation,
    "filter": lambda: anomaly.QuantileFilter(anomaly.StandardAbsoluteDeviation(), q=0.9),
}


@pytest.mark.parametrize("factory", SUPERVISED.values(), ids=SUPERVISED)
def test_supervised_models_are_rejected(factory: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match="target"):
        RiverDetector(factory, FEATURES, 1.0)


def test_a_model_that_cannot_be_pickled_is_rejected_at_construction() -> None:
    class Local(Spy):
        pass

    with pytest.raises(TypeError, match="cannot store"):
        RiverDetector(Local, FEATURES, 1.0)


def test_a_warm_up_too_short_for_a_deviation_is_rejected() -> None:
    with pytest.raises(ValueError, match="warm_up is 1"):
        StandardDeviation(FEATURES, warm_up=1)


def test_features_are_matched_by_name_when_a_snapshot_is_restored() -> None:
    data = random_rows(80, 2, seed=4, odd=0.0)
    old = StandardDeviation(("pm25", "no2", "o3"), warm_up=2)
    old.process_many(*data)
    new = StandardDeviation(("o3", "co"), warm_up=2)
    new.restore(old.snapshot())
    only = StandardDeviation(("o3",), warm_up=2)
    only.process_many(data.keys, data.X[:, 2:])
    X = np.array([[9.0, 1.0]])
    assert new.process_many(data.keys[:1], X) == only.process_many(data.keys[:1], X[:, :1])


def test_equal_states_have_equal_snapshots() -> None:
    data = random_rows(80, 9, seed=5)
    one, other = (StandardDeviation(FEATURES) for _ in range(2))
    one.process_many(*data)
    for part in (slice(30), slice(30, None)):
        other.process_many(*data.part(part))
    assert one.snapshot() == other.snapshot()
    other.process_many(*data)
    assert one.snapshot() != other.snapshot()


def test_a_snapshot_of_another_detector_is_ignored() -> None:
    data = random_rows(80, 2, seed=6, odd=0.0)
    makes = [DETECTORS["StandardDeviation"], DETECTORS["HalfSpaceTrees"], DETECTORS["LODA"]]
    for old, new in [(a, b) for a in makes for b in makes if a is not b]:
        before, after = old(), new()
        before.process_many(*data)
        after.restore(before.snapshot())
        assert after.process_many(*data).tolist() == new().process_many(*data).tolist()


@given(data=st.data())
@pytest.mark.parametrize(
    "make", [DETECTORS["StandardDeviation"], DETECTORS["HalfSpaceTrees"]], ids=["sd", "trees"]
)
@settings(max_examples=30, deadline=None)
def test_a_damaged_snapshot_is_detected(make: laws.Make, data: st.DataObject) -> None:
    detector = make()
    detector.process_many(*random_rows(20, 2, seed=7))
    state = bytearray(detector.snapshot())
    at = data.draw(st.integers(0, len(state) - 1))
    if data.draw(st.booleans()):
        state[at] ^= data.draw(st.integers(1, 255))
    else:
        del state[at:]
    with pytest.raises(StateError, match="damaged"):
        make().restore(bytes(state))


@given(kind=st.text(), parts=st.lists(st.binary()), other=st.text())
def test_a_sealed_snapshot_is_opened_only_for_its_kind(kind: str, parts: list[bytes], other: str) -> None:
    unseal: Callable[[str, bytes], Any] = unseal_parts
    assert unseal(kind, seal_parts(kind, parts)) == parts
    assert unseal(other, seal_parts(kind, parts)) == (parts if other == kind else None)


def named(module: str, name: str) -> bytes:
    """Return a pickle of protocol 4, in which a name may be a dotted path."""
    texts = (b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name))
    return b"\x80\x04" + b"".join(texts) + b"\x93."


class Malicious:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return eval, ("1 + 1",)


@pytest.mark.parametrize(
    "data",
    [
        b"cos\nsystem\n.",
        b"cbuiltins\ngetattr\n.",
        named("river.datasets.base", "os.system"),
        named("river.datasets.base", "os"),
        b"csubprocess\nPopen\n.",
        named("river.datasets.synth.agrawal", "Agrawal"),
        named("river.anomaly.hst", "itertools"),
        named("river.anomaly.lof", "LocalOutlierFactor"),
        pickle.dumps(Malicious()),
        pickle.dumps(Malicious(), protocol=5),
        b"\x80\x05Nr\xff\xff\xff\x7f.",  # LONG_BINPUT: gigabytes
        b"\x80\x05\x96\xff\xff\xff\x7f\x00\x00\x00\x00.",  # BYTEARRAY8
    ],
)
def test_unpickling_a_model_rejects_all_other_names(data: bytes) -> None:
    with pytest.raises(pickle.UnpicklingError, match=r"not part of the declared model|not a pickle"):
        unpickled(data, names_in([trees()]))
    detector = RiverDetector(trees, FEATURES, 0.9)
    detector.process_many(*random_rows(5, 1, seed=8))
    kind = "river 2:river.anomaly.hst.HalfSpaceTrees"
    parts = unseal_parts(kind, detector.snapshot())
    assert parts is not None
    with pytest.raises(StateError, match="cannot be read"):
        RiverDetector(trees, FEATURES, 0.9).restore(seal_parts(kind, [*parts[:3], data]))


def test_only_the_exact_classes_of_a_model_are_allowed() -> None:
    loda: Any = anomaly.LODA(n_random_cuts=5, seed=3)
    loda.learn_one({"x": 1.0})
    names = {("random", "Random"), ("river.anomaly.loda", "LODA")}
    assert names_in([loda]) == names | {
        ("river.sketch.histogram", "Bin"),
        ("river.sketch.histogram", "Histogram"),
    }


class CreatesLate:
    """A model that creates an instance of another class only after it has learnt many rows."""

    def __init__(self) -> None:
        self.rows = 0
        self.created: Whole | None = None

    def score_one(self, x: dict[str, float]) -> float:
        return float(self.rows)

    def learn_one(self, x: dict[str, float]) -> None:
        self.rows += 1
        if self.rows > 1_000:
            self.created = Whole()


class Whole:
    pass


def test_a_class_that_a_model_creates_late_must_be_declared() -> None:
    rows = random_rows(1_001, 1, seed=8)
    detector = RiverDetector(CreatesLate, FEATURES, 0.9)
    detector.process_many(*rows)
    with pytest.raises(StateError, match=r"Whole is not part .* with_river\(classes=…\)"):
        RiverDetector(CreatesLate, FEATURES, 0.9).restore(detector.snapshot())
    again = with_river(CreatesLate, 0.9, classes=(Whole,))(FEATURES)
    again.restore(detector.snapshot())
    assert again.process_many(*rows).tolist() == detector.process_many(*rows).tolist()


def test_an_unreadable_model_is_a_fatal_error_with_a_message() -> None:
    detector = RiverDetector(trees, FEATURES, 0.9)
    detector.process_many(*random_rows(5, 1, seed=8))
    kind = "river 2:river.anomaly.hst.HalfSpaceTrees"
    parts = unseal_parts(kind, detector.snapshot())
    assert parts is not None
    broken = [bytes(part).replace(b"HalfSpaceTrees", b"HalfSpaceForms") for part in parts]
    with pytest.raises(StateError, match="cannot be read by"):
        RiverDetector(trees, FEATURES, 0.9).restore(seal_parts(kind, broken))


def test_models_are_restored_unchanged() -> None:
    model = preprocessing.StandardScaler() | trees()
    for row in random_rows(30, 1, seed=9, odd=0.0).X.tolist():
        model.learn_one(dict(zip(FEATURES, row, strict=True)))
    again = unpickled(pickled(model), names_in([model]))
    x = dict.fromkeys(FEATURES, 0.3)
    assert again.score_one(x) == model.score_one(x)
