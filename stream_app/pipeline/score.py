"""The event's detector: an anomaly score for each row, learnt as it goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.alerting import Explaining, explain_alerts
from anomaly.detector import Detector, FloatMatrix, Times
from anomaly.keyed_state.indexed_keys import Numbered
from stream_app.model.event import Event
from stream_app.model.record import Batch
from stream_app.pipeline.user_code.user_calls import is_interrupt

EXPLANATION = "explanation"
Columns = Mapping[str, NDArray[Any]]


def score(batch: Batch, event: Event, detector: Detector | None, keys: Numbered | None = None) -> Batch:
    """Add `score` (float, ≥ 0) and `anomaly` (bool). Without a detector both are absent.

    `keys` are those of the rows, for who has them at hand with their numbers (`anomaly.keyed_state.indexed_keys`).

    A feature that is no number, or that `calculate` did not return, is missing (NaN).

    A detector that can say why adds `explanation`: a dict for each anomaly, else None. It is for alerts, not stored.
    A row on which the detector raises has the score NaN, is no anomaly, and was not learnt.
    """
    if detector is None or not len(batch):
        return batch
    features = np.empty((len(batch), len(event.features)))
    for at, name in enumerate(event.features):
        features[:, at] = _numbers(batch[name]) if name in batch else np.nan
    names = batch[event.key].tolist() if keys is None else keys
    times = batch["time"] if "time" in batch and batch["time"].dtype.kind == "M" else None
    return batch.with_columns(_judged(detector, names, features, times))


def _numbers(column: NDArray[Any]) -> NDArray[Any]:
    """A column as floating-point numbers; None becomes NaN, and so does what is no number."""
    try:
        return column.astype(np.float64, copy=False)
    except (TypeError, ValueError, OverflowError):
        return np.array([_number(value) for value in column.tolist()], dtype=np.float64)


def _number(value: Any) -> float:
    try:
        return float(np.float64(value))
    except (TypeError, ValueError, OverflowError):
        return np.nan


def unscored(batch: Batch) -> int:
    """How many rows the detector raised on. What a check flagged has no score, but is an anomaly."""
    return int((np.isnan(batch["score"]) & ~batch["anomaly"]).sum()) if "score" in batch else 0


def _judged(detector: Detector, keys: Sequence[Any], X: FloatMatrix, times: Times | None) -> Columns:
    """Rows are halved down to those on which the detector raises.

    A call that raises leaves the detector as it was (`anomaly.detector`), and rows go to it in their order: what is
    learnt is the same however the rows came in batches, and no row is learnt twice.
    """
    try:
        with np.errstate():
            return _columns(detector, keys, X, times)
    except BaseException as error:  # whatever a user's model raises is a fact about the row
        if is_interrupt(error):
            raise
        if len(keys) == 1:
            return _unjudged(detector)
    middle = len(keys) // 2
    halves = [
        _judged(detector, _part(keys, part), X[part], None if times is None else times[part])
        for part in (slice(0, middle), slice(middle, None))
    ]
    return {name: np.concatenate([half[name] for half in halves]) for name in halves[0]}


def _part(keys: Sequence[Any], rows: slice) -> Sequence[Any]:
    return keys.part(rows) if isinstance(keys, Numbered) else keys[rows]


def _columns(detector: Detector, keys: Sequence[Any], X: FloatMatrix, times: Times | None) -> Columns:
    if not isinstance(detector, Explaining):
        scores = _checked(detector.process_many(keys, X, times), len(keys))
        return {"score": scores, "anomaly": scores >= detector.threshold}
    judged = detector.assess_many(keys, X, times)
    scores = _checked(judged.scores, len(keys))
    return {
        "score": scores,
        "anomaly": scores >= detector.threshold,
        EXPLANATION: explain_alerts(detector, judged),
    }


def _checked(scores: Any, rows: int) -> NDArray[Any]:
    """A detector's scores as real numbers of shape (rows,). Raises ValueError where they are none."""
    column = np.asarray(scores)
    if column.shape != (rows,) or column.dtype.kind not in "fiu":
        raise ValueError(
            f"scores have shape {column.shape} and dtype {column.dtype}, expected ({rows},) numbers"
        )
    return column


def _unjudged(detector: Detector) -> Columns:
    columns: dict[str, NDArray[Any]] = {"score": np.array([np.nan]), "anomaly": np.array([False])}
    if isinstance(detector, Explaining):
        columns[EXPLANATION] = np.array([None], dtype=object)
    return columns
