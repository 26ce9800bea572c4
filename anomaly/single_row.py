"""River's interface over a detector of many devices: rows are dicts, and there is one device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from anomaly.detector import FloatMatrix, FloatVector, Times

KEY = ""


class _Many(Protocol):
    _names: tuple[str, ...]

    def _learn_names(self, names: Sequence[str]) -> None: ...
    def process_many(
        self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None
    ) -> FloatVector: ...
    def score_rows(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector: ...


class OneDevice:
    """`score_one`, `learn_one` and their like for DataFrames; features are learnt as they are met.

    A feature that a row does not name, or whose value is None or NaN, is missing. `score_many` learns nothing: it
    equals `score_one` of each row. `learn_many` equals `learn_one` of each row in order.
    """

    def score_one(self: _Many, x: Mapping[Any, Any]) -> float:
        """The score of a row, which is not learnt."""
        return float(self.score_rows([KEY], _matrix([x], self._names))[0])

    def learn_one(self: _Many, x: Mapping[Any, Any]) -> None:
        """Learns a row."""
        self._learn_names([str(name) for name in x])
        self.process_many([KEY], _matrix([x], self._names))

    def score_many(self: _Many, X: Any) -> FloatVector:
        """(n,) scores of the rows of a DataFrame."""
        rows = X.to_dict("records")
        return self.score_rows([KEY] * len(rows), _matrix(rows, self._names))

    def learn_many(self: _Many, X: Any) -> None:
        """Learns the rows of a DataFrame in order."""
        rows = X.to_dict("records")
        self._learn_names([str(name) for name in X.columns])
        self.process_many([KEY] * len(rows), _matrix(rows, self._names))


def _matrix(rows: Sequence[Mapping[Any, Any]], names: Sequence[str]) -> FloatMatrix:
    X = np.full((len(rows), len(names)), np.nan)
    columns = {name: number for number, name in enumerate(names)}
    for at, row in enumerate(rows):
        for name, value in row.items():
            number = columns.get(str(name))
            if number is not None and value is not None:
                X[at, number] = value
    return X
