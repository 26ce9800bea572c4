"""The score stage: the event's detector scores each row and learns from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from anomaly.alerting import Explaining, explain_alerts
from anomaly.detector import AnyArray, Detector, FloatMatrix, Times
from anomaly.keyed_state.indexed_keys import Numbered
from stream_app.model.event import Event
from stream_app.model.record import Batch, Mask
from stream_app.pipeline.sensor_checks import FLAG, Flags
from stream_app.pipeline.user_code.user_calls import Columns, is_interrupt

EXPLANATION = "explanation"


def score(batch: Batch, event: Event, detector: Detector | None, keys: Numbered | None = None) -> Batch:
    """Add the columns `score` (float, ≥ 0) and `anomaly` (bool); without a detector return the batch unchanged.

    `keys` are the keys of the rows with their slots, if the caller has looked them up already.

    A feature that is not numeric, or that `calculate` did not return, is NaN. An explaining detector also adds
    `explanation`: a dict for each anomaly, otherwise None; it goes into alerts and is not stored. A row on which the
    detector raises gets the score NaN, is not an anomaly, and is not learned.
    """
    if detector is None or not len(batch):
        return batch
    features = np.empty((len(batch), len(event.features)))
    for at, name in enumerate(event.features):
        features[:, at] = _numbers(batch[name]) if name in batch else np.nan
    names = batch[event.key].tolist() if keys is None else keys
    times = batch["time"] if "time" in batch and batch["time"].dtype.kind == "M" else None
    return batch.with_columns(_scored(detector, names, features, times))


def score_unflagged(
    batch: Batch, flags: Flags | None, event: Event, detector: Detector | None, keys: Numbered | None = None
) -> Batch:
    """Add `flag`, and score the rows without a flag, so that the detector does not learn from a broken sensor.

    A flagged row has the score NaN and is an anomaly. Without `flags`, this is `score`.
    """
    if flags is None:
        return score(batch, event, detector, keys)
    flagged: Mask = (flags != np.array(None)).astype(np.bool_)
    marked = batch.with_columns({FLAG: flags})
    if not len(marked):
        return marked
    if detector is None:
        return marked.with_columns({"anomaly": flagged})
    if not flagged.any():
        return score(marked, event, detector, keys)
    scores, anomaly = np.full(len(marked), np.nan), flagged.copy()
    needed = {event.key, "time", *event.features}.intersection(marked.columns)
    own = None if keys is None else keys.take(np.flatnonzero(~flagged))
    clean = score(marked.only(needed).take(~flagged), event, detector, own)
    if len(clean):
        scores[~flagged], anomaly[~flagged] = clean["score"], clean["anomaly"]
    columns: dict[str, AnyArray] = {"score": scores, "anomaly": anomaly}
    if isinstance(detector, Explaining):
        columns[EXPLANATION] = np.full(len(marked), None, dtype=object)
        if len(clean):
            columns[EXPLANATION][~flagged] = clean[EXPLANATION]
    return marked.with_columns(columns)


def _numbers(column: AnyArray) -> NDArray[np.float64]:
    """Convert a column to float64; None and values that are not numeric become NaN."""
    try:
        return column.astype(np.float64, copy=False)
    except (TypeError, ValueError, OverflowError):
        return np.array([_number(value) for value in column.tolist()], dtype=np.float64)


def _number(value: object) -> float:
    try:
        return float(np.float64(value))  # type: ignore[arg-type]  # raises on what is not a number
    except (TypeError, ValueError, OverflowError):
        return np.nan


def unscored(batch: Batch) -> int:
    """Count the rows on which the detector raised. Flagged rows have no score either, but are anomalies."""
    return int((np.isnan(batch["score"]) & ~batch["anomaly"]).sum()) if "score" in batch else 0


def _scored(detector: Detector, keys: Sequence[str], X: FloatMatrix, times: Times | None) -> Columns:
    """Score rows; if the detector raises, bisect them to isolate the rows on which it raises.

    A call that raises leaves the detector unchanged (`anomaly.detector`), and rows are passed in their order. The
    detector therefore learns the same for any split into batches, and learns no row twice.
    """
    try:
        with np.errstate():
            return _columns(detector, keys, X, times)
    except BaseException as error:  # a user's detector may raise anything
        if is_interrupt(error):
            raise
        if len(keys) == 1:
            return _unscored_row(detector)
    middle = len(keys) // 2
    halves = [
        _scored(detector, _part(keys, part), X[part], None if times is None else times[part])
        for part in (slice(0, middle), slice(middle, None))
    ]
    return {name: np.concatenate([half[name] for half in halves]) for name in halves[0]}


def _part(keys: Sequence[str], rows: slice) -> Sequence[str]:
    return keys.part(rows) if isinstance(keys, Numbered) else keys[rows]


def _columns(detector: Detector, keys: Sequence[str], X: FloatMatrix, times: Times | None) -> Columns:
    if not isinstance(detector, Explaining):
        scores = _checked(detector.process_many(keys, X, times), len(keys))
        return {"score": scores, "anomaly": scores >= detector.threshold}
    scoring = detector.assess_many(keys, X, times)
    scores = _checked(scoring.scores, len(keys))
    return {
        "score": scores,
        "anomaly": scores >= detector.threshold,
        EXPLANATION: explain_alerts(detector, scoring),
    }


def _checked(scores: object, rows: int) -> AnyArray:
    """Return a detector's scores as an array. Raises ValueError unless they are real numbers of shape (rows,)."""
    column = np.asarray(scores)
    if column.shape != (rows,) or column.dtype.kind not in "fiu":
        raise ValueError(
            f"scores have shape {column.shape} and dtype {column.dtype}, expected ({rows},) numbers"
        )
    return column


def _unscored_row(detector: Detector) -> Columns:
    columns: dict[str, AnyArray] = {"score": np.array([np.nan]), "anomaly": np.array([False])}
    if isinstance(detector, Explaining):
        columns[EXPLANATION] = np.array([None], dtype=object)
    return columns
