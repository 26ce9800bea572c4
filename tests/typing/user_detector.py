"""A user's detector, one of the package's with other parameters, and one of river."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np

from anomaly.detector import FloatMatrix, FloatVector, StateError, Times
from anomaly.river import StandardDeviation, with_river
from anomaly.trees import HalfSpaceTrees
from stream_app.api import Detector, DetectorFactory


class Largest:
    """Score a row by how far it exceeds the largest value of its device."""

    def __init__(self, features: Sequence[str], threshold: float = 1.0) -> None:
        self.threshold = threshold
        self._features = tuple(features)
        self._largest: dict[str, float] = {}

    def process_many(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector:
        """Score, then learn each row."""
        scores = np.zeros(len(keys), np.float64)
        for row, key in enumerate(keys):
            value = float(np.nanmax(X[row]))
            scores[row] = max(0.0, value - self._largest.get(key, value))
            self._largest[key] = max(value, self._largest.get(key, value))
        return scores

    def snapshot(self) -> bytes:
        """Return the state of every device."""
        return json.dumps(self._largest).encode()

    def restore(self, state: bytes, keep: Callable[[str], bool] = lambda _key: True) -> None:
        """Add the devices of a snapshot that `keep` selects."""
        try:
            read: dict[str, float] = json.loads(state)
        except ValueError as error:
            raise StateError("the state is no JSON") from error
        self._largest |= {key: value for key, value in read.items() if keep(key)}


class Mean:
    """A model with river's interface: its score is the distance from the mean of the past."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def score_one(self, x: dict[str, float]) -> float:
        """Return the distance from the mean."""
        return abs(sum(x.values()) - self._sum / max(1, self._count))

    def learn_one(self, x: dict[str, float]) -> None:
        """Add the row to the mean."""
        self._sum, self._count = self._sum + sum(x.values()), self._count + 1


OWN: DetectorFactory = Largest
TREES: DetectorFactory = HalfSpaceTrees
DEVIATION: DetectorFactory = StandardDeviation
RIVER: DetectorFactory = with_river(Mean, threshold=3.0)


def replay(make: DetectorFactory, values: Sequence[float]) -> FloatVector:
    """Return the scores of one device's values."""
    made: Detector = make(("level",))
    rows: FloatMatrix = np.array(values, np.float64).reshape(-1, 1)
    return made.process_many(["a"] * len(values), rows, None)
