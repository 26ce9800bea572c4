"""River's estimator interface for detectors of many devices: rows are dicts of a single device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from anomaly.detector import FloatMatrix, FloatVector, Times

if TYPE_CHECKING:
    import pandas as pd

KEY = ""
Row = Mapping[Any, Any]  # as in river: names of any type, values that NumPy converts to float


class _ManyDevices(Protocol):
    _names: tuple[str, ...]

    def _learn_names(self, names: Sequence[str]) -> None: ...
    def process_many(
        self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None
    ) -> FloatVector: ...
    def score_rows(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector: ...


class OneDevice:
    """Mixin with `score_one`, `learn_one` and their DataFrame counterparts; features are added when first seen.

    A feature that is absent from a row, None or NaN is missing. `score_many` is equivalent to `score_one` of each row
    and learns nothing; `learn_many` is equivalent to `learn_one` of each row in order.
    """

    def score_one(self: _ManyDevices, x: Row) -> float:
        """Return the score of a row without learning it."""
        return float(self.score_rows([KEY], _matrix([x], self._names))[0])

    def learn_one(self: _ManyDevices, x: Row) -> None:
        """Learn a row."""
        self._learn_names([str(name) for name in x])
        self.process_many([KEY], _matrix([x], self._names))

    def score_many(self: _ManyDevices, X: pd.DataFrame) -> FloatVector:
        """Return the (n,) scores of the rows of a DataFrame."""
        rows = X.to_dict("records")
        return self.score_rows([KEY] * len(rows), _matrix(rows, self._names))

    def learn_many(self: _ManyDevices, X: pd.DataFrame) -> None:
        """Learn the rows of a DataFrame in order."""
        rows = X.to_dict("records")
        self._learn_names([str(name) for name in X.columns])
        self.process_many([KEY] * len(rows), _matrix(rows, self._names))


def _matrix(rows: Sequence[Row], names: Sequence[str]) -> FloatMatrix:
    X = np.full((len(rows), len(names)), np.nan)
    columns = {name: number for number, name in enumerate(names)}
    for at, row in enumerate(rows):
        for name, value in row.items():
            number = columns.get(str(name))
            if number is not None and value is not None:
                X[at, number] = value
    return X
