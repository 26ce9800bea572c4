"""Documented behaviour of `NearestValue` beyond the detector laws."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly import laws
from anomaly.alerting import Explaining, explain_alerts, severity
from anomaly.nearest import NearestValue, at_most_one_alert
from anomaly.nearest_value import held_values as kernel
from anomaly.nearest_value.kernel import NEAR
from tests.unit.detectors import FEATURES, quick, random_rows, rows

DAY = np.timedelta64(24, "h")


def hourly(days: int) -> Any:
    return np.datetime64("2024-01-01T00", "h") + np.arange(24 * days)


def alerts(detector: NearestValue, X: Any, times: Any = None) -> Any:
    scores = detector.process_many(["device"] * len(X), X, times)
    return np.flatnonzero(scores >= detector.threshold)


def test_the_first_channel_follows_its_documented_formula() -> None:
    values = [3.0, 5.0, 4.5, 9.0, 3.0, 3.25]
    detector = NearestValue(["a"], warm_up=1, window=1, threshold=1e9)  # a window of one: average = value
    got = detector.process_many(["k"] * 6, np.array(values)[:, None])
    step = distance = 0.0
    expected = [0.0]
    for n, value in enumerate(values[1:], start=1):
        nearest = min(abs(value - seen) for seen in values[:n])
        spread = max(values[:n]) - min(values[:n])
        usual = (spread * step) ** 0.375 * distance**0.25
        expected.append(nearest / usual * n**0.25 if usual else 0.0)
        step += (abs(value - values[n - 1]) - step) / n
        distance += (nearest - distance) / n
    assert got.tolist() == pytest.approx(expected, rel=1e-6)
    assert max(expected) > 1.0


@given(
    st.lists(st.floats(-1e3, 1e3) | st.integers(-20, 20).map(float), min_size=1, max_size=160),
    st.integers(3, 9) | st.sampled_from([17, 18, 19, 33, 64]),
)
@settings(max_examples=200, deadline=None)
def test_kept_values_are_thinned_where_they_are_closest(values: list[float], capacity: int) -> None:
    held = np.full((1, 1, capacity), np.inf, np.float32)
    closest = np.float32(0.0)
    kept: list[float] = []
    for value in np.array(values, np.float32):
        at = kernel.place_of(held, 0, 0, value, capacity)
        assert at == sum(other < value for other in kept)
        if kept and kernel.nearest(held, 0, 0, at, value, capacity) == value:
            continue
        closest = kernel.hold(held, 0, 0, len(kept), at, value, closest, capacity)
        kept = sorted([*kept, value])
        if len(kept) > capacity:
            gaps = [after - before for before, after in zip(kept, kept[2:], strict=False)]
            del kept[1 + gaps.index(min(gaps))]
        assert held[0, 0, : len(kept)].tolist() == kept


@given(seed=st.integers(0, 2**32), offset=st.sampled_from([-1e6, 1e3, 1e6]))
@settings(max_examples=20, deadline=None)
def test_scores_do_not_depend_on_an_offset(seed: int, offset: float) -> None:
    rows = random_rows(150, 2, seed, odd=0.0)
    one, other = (NearestValue(FEATURES, warm_up=10, capacity=200) for _ in range(2))
    plain, shifted = one.process_many(*rows), other.process_many(rows.keys, rows.X + offset)
    np.testing.assert_allclose(plain, shifted, rtol=1e-3, atol=0.02)


def test_an_unseen_value_between_usual_ones_is_detected() -> None:
    rng = np.random.default_rng(1)
    X = np.where(rng.random(400) < 0.5, 10.0, 90.0)[:, None] + rng.normal(size=(400, 1)).round(1)
    detector = NearestValue(["a"])
    detector.process_many(["device"] * 400, X)
    usual, strange = (detector.score_rows(["device"], np.array([[value]])).item() for value in (90.0, 50.0))
    assert strange > detector.threshold > 5.0 * usual


def test_a_usual_value_at_an_unusual_hour_is_detected() -> None:
    times = hourly(60)
    X = (10.0 * (np.arange(len(times)) % 24 >= 12) + np.sin(np.arange(len(times)) * 0.7))[:, None]
    X[24 * 55 + 2] = 10.0  # an afternoon value at two in the morning
    with_hours, without = NearestValue(["a"]), NearestValue(["a"])
    assert 24 * 55 + 2 in alerts(with_hours, X, times)
    judged = NearestValue(["a"]).assess_many(["device"] * len(X), X, times)
    assert judged.channel[24 * 55 + 2] == 2
    scores = without.process_many(["device"] * len(X), X, np.full(len(X), np.datetime64("NaT", "s")))
    assert scores.tolist() == NearestValue(["a"]).process_many(["device"] * len(X), X).tolist()
    assert scores[24 * 55 + 2] < judged.scores[24 * 55 + 2]


def test_the_first_change_of_a_constant_value_is_detected_at_once() -> None:
    X = np.full((300, 1), 7.0)
    X[200:] = 7.5
    found = alerts(NearestValue(["a"]), X)
    assert found[0] == 200


# Data without anomalies: n rows, `day` of them per day.
CLEAN: dict[str, Any] = {
    "normal": lambda rng, n, day: rng.normal(size=n),
    "heavy tails": lambda rng, n, day: rng.standard_t(3, size=n),
    "counts": lambda rng, n, day: rng.poisson(5.0, size=n).astype(float),
    "walk": lambda rng, n, day: np.cumsum(rng.normal(size=n)),
    "daily": lambda rng, n, day: 20 * np.sin(np.arange(n) * 2 * np.pi / day) + rng.normal(size=n),
    "working days": lambda rng, n, day: 20.0 * (np.arange(n) // day % 7 < 5) + rng.normal(size=n),
    "seasons": lambda rng, n, day: 20 * np.sin(np.arange(n) * 2 * np.pi / day / 365) + rng.normal(size=n),
    "lognormal": lambda rng, n, day: rng.lognormal(sigma=1.0, size=n),
    "seldom above 0": lambda rng, n, day: (rng.random(n) < 0.01) * rng.lognormal(size=n).round(1),
}


@pytest.mark.parametrize("readings", [24, 288], ids=["hourly", "five minutes"])
@pytest.mark.parametrize("clean", CLEAN.values(), ids=CLEAN)
def test_without_anomalies_a_device_alerts_at_the_configured_rate(clean: Any, readings: int) -> None:
    weeks, every = 40, timedelta(days=1) / readings
    n = weeks * 7 * readings
    times = np.datetime64("2024-01-01", "s") + np.arange(n) * np.timedelta64(every)
    make = at_most_one_alert(timedelta(weeks=1), every)
    rates = []
    for seed in range(2):
        for features in (["a"], ["a", "b", "c"]):
            rng = np.random.default_rng(seed)
            X = np.stack([clean(rng, n, readings) for _ in features], axis=1)
            rates.append(len(alerts(make(features), X, times)) / weeks)
    assert np.mean(rates) <= 1.2
    assert max(rates) <= 1.3


@given(
    st.lists(st.floats(-1e3, 1e3) | st.sampled_from([0.0, 1e9, -1e30]), min_size=50, max_size=400),
    st.sampled_from([20.0, 100.0]),
)
@settings(max_examples=40, deadline=None)
def test_the_alert_rate_never_exceeds_its_bound(values: list[float], rows: float) -> None:
    detector = NearestValue(["a"], rows_per_alert=rows, cooldown=0, warm_up=0, step_up=1.0)
    found = alerts(detector, np.array(values)[:, None])
    assert len(found) <= len(values) / rows + math.log(1e9 / detector.threshold) + 1


def test_the_alert_rate_can_be_given_per_time() -> None:
    factory = at_most_one_alert(timedelta(weeks=1), timedelta(hours=1), threshold=0.5)
    detector = factory(FEATURES)
    assert (detector.rows_per_alert, detector.warm_up, detector.threshold) == (168.0, 168, 0.5)
    assert factory.__name__ == "NearestValue"
    X = np.random.default_rng(3).lognormal(size=(168 * 52, 3))
    X[5000] = 1e4
    found = alerts(detector, X)
    assert len(found) <= 1.3 * 52
    assert 5000 in found


def test_no_alert_is_raised_during_the_cooldown() -> None:
    rng = np.random.default_rng(5)
    X = rng.normal(size=(2000, 1))
    X[1000:1010] += 10.0 ** np.arange(1, 11)[:, None]
    found = alerts(NearestValue(["a"], cooldown=50), X)
    assert 1000 in found
    assert np.diff(found).min() > 50


def test_combined_features_score_above_the_strongest_feature() -> None:
    rng = np.random.default_rng(6)
    X = rng.normal(size=(500, 3)).round(1)
    strange = np.array([[5.0, 0.05, 0.05], [5.0, 5.0, 5.0]])
    detector = NearestValue(FEATURES, cooldown=0)
    detector.process_many(["device"] * 500, X)
    one, all_of_them = detector.score_rows(["device"] * 2, strange)
    assert all_of_them > 2.0 * one > 2.0 * detector.threshold


def test_an_explanation_contains_feature_value_and_nearest_value() -> None:
    rng = np.random.default_rng(7)
    X = rng.normal(size=(500, 3)).round(1) + np.array([100.0, 200.0, 300.0])
    X[400, 1] = 950.0
    detector = NearestValue(FEATURES, cooldown=0)
    judged = detector.assess_many(["device"] * 500, X)
    why = detector.explain(judged, 400)
    assert why is not None
    assert (why.feature, why.channel, why.observed) == ("no2", "value", 950.0)
    assert why.nearest == pytest.approx(X[:400, 1].max())
    assert why.distance == 950.0 - why.nearest > 100 * why.usual
    assert why.severity == "high"
    assert "no2 is 950; the nearest value seen is 20" in str(why)
    assert detector.explain(judged, 0) is not None
    nothing = detector.assess_many(["device"], np.full((1, 3), np.nan))
    assert detector.explain(nothing, 0) is None


def test_alerts_contain_explanations() -> None:
    X = np.random.default_rng(7).normal(size=(500, 1))
    X[400] = 99.0
    detector = NearestValue(["a"])
    assert isinstance(detector, Explaining)
    judged = detector.assess_many(["device"] * 500, X)
    told = explain_alerts(detector, judged)
    assert [why is not None for why in told] == (judged.scores >= detector.threshold).tolist()
    assert told[400]["feature"] == "a"
    assert "a is 99; the nearest value seen is" in told[400]["text"]
    assert json.loads(json.dumps(told[400])) == told[400]


@given(rows=rows(), cut=st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_an_assessment_does_not_depend_on_batches(rows: laws.Rows, cut: int) -> None:
    whole, parts = quick(), quick()
    expected = whole.assess_many(*rows)
    got = [parts.assess_many(*rows.part(part)) for part in (slice(cut), slice(cut, None))]
    for name, column in expected._asdict().items():
        joined = np.concatenate([getattr(part, name) for part in got])
        assert joined.tobytes() == column.tobytes(), name


@pytest.mark.parametrize(
    ("score", "expected"), [(0.9, None), (1.0, "low"), (1.99, "low"), (2.0, "medium"), (4.0, "high")]
)
def test_severity_depends_on_the_ratio_of_score_and_threshold(score: float, expected: str | None) -> None:
    assert severity(score * 0.45, 0.45) == expected


def test_many_devices_are_scored_independently() -> None:
    devices, times = 1000, 5  # enough state for the kernel to prefetch
    keys = [f"device {number}" for number in range(devices)] * times
    X = np.random.default_rng(10).lognormal(size=(len(keys), 3)).round(2)
    many = NearestValue(FEATURES, warm_up=1)
    judged = many.assess_many(keys, X)
    assert many.bytes_per_key * devices > 2 * NEAR
    for number in (0, 1, 500, 998, 999):
        alone = NearestValue(FEATURES, warm_up=1).assess_many(keys[number::devices], X[number::devices])
        for name, column in alone._asdict().items():
            assert getattr(judged, name)[number::devices].tobytes() == column.tobytes(), name


def test_scoring_without_learning_does_not_change_the_state() -> None:
    rows = random_rows(200, 5, seed=8)
    detector = quick()
    detector.process_many(*rows)
    before = detector.snapshot()
    strangers = laws.Rows([*rows.keys[:20], "stranger"], rows.X[:21])
    scores = detector.score_rows(*strangers)
    assert detector.snapshot() == before
    assert scores[-1] == 0.0
    assert scores[0] == detector.process_many(*strangers.part([0]))[0]


def test_features_are_matched_by_name_when_a_snapshot_is_restored() -> None:
    rows = random_rows(80, 2, seed=4, odd=0.0)
    old, new, only = (NearestValue(names, warm_up=2) for names in (FEATURES, ("o3", "co"), ("o3",)))
    old.process_many(*rows)
    new.restore(old.snapshot())
    X = np.array([[9.0, math.nan]])
    expected = old.process_many(rows.keys[:1], np.array([[math.nan, math.nan, 9.0]]))
    assert new.process_many(rows.keys[:1], X).tolist() == expected.tolist()
    assert only.bytes_per_key < new.bytes_per_key


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 0.0},
        {"capacity": 2},
        {"window": 0},
        {"memory": 0},
        {"rows_per_alert": 0},
        {"step_up": -1},
        {"max_keys": 0},
    ],
)
def test_invalid_parameters_are_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"at least|above"):
        NearestValue(["a"], **wrong)


def test_rows_of_the_wrong_shape_are_rejected() -> None:
    with pytest.raises(ValueError, match="3 features"):
        quick().process_many(["k"], np.zeros((1, 2)))


def test_memory_does_not_grow_with_the_number_of_rows() -> None:
    rng = np.random.default_rng(9)
    detector, sizes = NearestValue(["a"]), []
    keys = [f"device {number}" for number in range(10)] * 1000
    for _ in range(100):
        detector.process_many(keys, rng.lognormal(size=(10_000, 1)))
        sizes.append(len(detector.snapshot()))
    assert max(sizes) <= sizes[0] + 16
    assert sizes[0] <= 10 * (detector.bytes_per_key + 30) + 300
