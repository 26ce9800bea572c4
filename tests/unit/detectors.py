"""The detectors under test, and strategies for rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from river import anomaly, preprocessing

from anomaly import laws
from anomaly.alerting import Assessment
from anomaly.detector import FloatMatrix, Times
from anomaly.nearest import NearestValue
from anomaly.river import RiverDetector, StandardDeviation
from anomaly.trees import HalfSpaceTrees

FEATURES = ("pm25", "no2", "o3")
ODD = (math.nan, math.inf, -math.inf, 1e308, -1e308, 1e150, 5e-324, -0.0)


def trees() -> Any:
    return anomaly.HalfSpaceTrees(n_trees=3, height=3, window_size=4, seed=7)


class Clocked(NearestValue):
    """Derives an hour for each row from its first value: one of three hours of the day, or NaT."""

    scale_free: Any = None

    def assess_many(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> Assessment:
        hours = np.nan_to_num(np.abs(X[:, 0]), nan=3.0, posinf=3.0).clip(0.0, 3.0).astype(np.int64)
        times = hours.astype("datetime64[h]")
        times[hours == 3] = np.datetime64("NaT")
        return super().assess_many(keys, X, times)


def quick(kind: type[NearestValue] = NearestValue, **parameters: Any) -> NearestValue:
    """Return a detector small enough to warm up, thin out, alert and cool down within the rows of a test."""
    return kind(FEATURES, capacity=4, warm_up=3, cooldown=2, rows_per_alert=10, window=3, **parameters)


DETECTORS: dict[str, laws.Make] = {
    "NearestValue": quick,
    "NearestValue with hours": lambda: quick(Clocked),
    "StandardDeviation": lambda: StandardDeviation(FEATURES, warm_up=3),
    "compiled trees": lambda: HalfSpaceTrees(FEATURES, n_trees=3, height=3, window_size=4, seed=7),
    "compiled trees, not scaled": lambda: HalfSpaceTrees(
        FEATURES, n_trees=2, height=4, window_size=5, scaled=False, warm_up=7
    ),
    "HalfSpaceTrees": lambda: RiverDetector(trees, FEATURES, 0.9),
    "scaled HalfSpaceTrees": lambda: RiverDetector(
        lambda: preprocessing.MinMaxScaler() | trees(), FEATURES, 0.9, 5
    ),
    "LODA": lambda: RiverDetector(lambda: anomaly.LODA(n_random_cuts=5, seed=3), FEATURES, 10.0),
}


def random_rows(number: int, devices: int, seed: int, odd: float = 0.1) -> laws.Rows:
    """Return random rows: several per device, with some unusual values."""
    rng = np.random.default_rng(seed)
    X = rng.lognormal(size=(number, len(FEATURES))).round(2)
    strange = rng.random(X.shape) < odd
    X[strange] = rng.choice(ODD, strange.sum())
    return laws.Rows([f"station {k}" for k in rng.integers(0, devices, number)], X)


@st.composite
def rows(draw: st.DrawFn) -> laws.Rows:
    """Few rows that Hypothesis can shrink, or enough rows to reach every branch of a detector."""
    if draw(st.booleans()):
        number = draw(st.integers(0, 96))
        return random_rows(number, draw(st.sampled_from([1, 3, 48])), draw(st.integers(0, 2**32)))
    number = draw(st.integers(0, 12))
    keys = draw(st.lists(st.sampled_from("abc"), min_size=number, max_size=number))
    values = st.sampled_from(ODD) | st.floats(-1e3, 1e3)
    return laws.Rows(keys, draw(arrays(np.float64, (number, len(FEATURES)), elements=values)))
