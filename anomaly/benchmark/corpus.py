"""A corpus in the layout of the Numenta Anomaly Benchmark, and scores in the layout of its results.

DIR/data/<category>/<series>.csv      timestamp,value
DIR/labels/combined_windows.json      {"<category>/<series>.csv": [["<first>", "<last>"], ...]}
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from anomaly.benchmark.scorer import Truth, truth
from anomaly.detector import FloatMatrix, FloatVector, Times

LABELS = Path("labels") / "combined_windows.json"


class CorpusError(ValueError):
    """A folder that is not a valid corpus."""


class Series(NamedTuple):
    """A series of n rows: times, X (n, features), and the first and last row index of each labelled window."""

    name: str
    times: Times
    X: FloatMatrix
    features: tuple[str, ...]
    windows: tuple[tuple[int, int], ...]

    @property
    def truth(self) -> Truth:
        """The labels in the form of the scorer."""
        return truth(len(self.X), self.windows)


def read(folder: Path) -> list[Series]:
    """Read the labelled series of a corpus, sorted by name. Raises CorpusError."""
    labels = folder / LABELS
    try:
        windows = json.loads(labels.read_text())
    except (OSError, ValueError) as error:
        raise CorpusError(f"cannot read {labels}: {error}") from error
    paths = {name: folder / "data" / name for name in sorted(windows)}
    found = [_series(name, path, windows[name]) for name, path in paths.items() if path.is_file()]
    if not found:
        raise CorpusError(f"none of the {len(windows)} series of {labels} exists in {folder / 'data'}")
    return found


def _series(name: str, path: Path, windows: Sequence[tuple[str, str]]) -> Series:
    try:
        table = pd.read_csv(path, header=0, parse_dates=[0])
        times = table.iloc[:, 0].to_numpy("datetime64[ns]")
        numbers = table[["value"]] if "value" in table else table.iloc[:, 1:]
        X = numbers.to_numpy(np.float64)
    except (OSError, ValueError) as error:
        raise CorpusError(f"cannot read {path}: {error}") from error
    places = tuple((_place(times, first, name), _place(times, last, name)) for first, last in windows)
    return Series(name, times, X, tuple(map(str, numbers.columns)), places)


def _place(times: Times, when: str, name: str) -> int:
    found = np.flatnonzero(times == np.datetime64(pd.Timestamp(when).to_datetime64()))
    if not len(found):
        raise CorpusError(
            f"{name}: a window begins or ends at {when}, but the series has no row at that time"
        )
    return int(found[0])


def write_scores(folder: Path, series: Series, scores: FloatVector, alerts: NDArray[np.bool_]) -> Path:
    """Write a result file with timestamp, features, anomaly_score (all digits) and alert (0 or 1)."""
    path = folder / series.name
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: series.X[:, number] for number, name in enumerate(series.features)}
    pd.DataFrame(
        {"timestamp": series.times, **columns, "anomaly_score": scores, "alert": alerts.astype(np.int64)}
    ).to_csv(path, index=False)
    return path
