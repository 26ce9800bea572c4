"""The scoring of the Numenta Anomaly Benchmark: early detections inside a labelled window count most.

The rules are those of Lavin and Ahmad, "Evaluating Real-time Anomaly Detection Algorithms" (ICMLA 2015). A sigmoid of
the position relative to the window weights the first detection in each window and every detection outside. The first
15 % of a series (at most 750 rows) are not scored. A detector without alerts scores 0, a perfect one 100.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.detector import FloatVector

PROBATION, LONGEST_PROBATION = 0.15, 750.0


class Profile(NamedTuple):
    """The reward of a hit, and the costs of a miss and of a false alert."""

    hit: float
    miss: float
    false_alert: float


PROFILES: Mapping[str, Profile] = {
    "standard": Profile(1.0, 1.0, 0.11),
    "reward_low_FP_rate": Profile(1.0, 1.0, 0.22),
    "reward_low_FN_rate": Profile(1.0, 2.0, 0.11),
}


class Truth(NamedTuple):
    """The labels of a series of n rows.

    `worth` (n,) is the weight of a detection, above 0 inside windows and below 0 outside; `window` (n,) is the index
    of the window that contains the row, or OUTSIDE or UNSCORED.
    """

    worth: FloatVector
    window: NDArray[np.int64]
    windows: int


OUTSIDE, UNSCORED = -1, -2


class Result(NamedTuple):
    """The score of a detector on a corpus at one threshold: up to 100, below 0 if no alerts would be better."""

    score: float
    threshold: float
    hits: int
    misses: int
    false_alerts: int


def probation(rows: int) -> int:
    """Return the number of rows at the beginning of a series that are not scored."""
    return int(np.ceil(min(np.floor(PROBATION * rows), LONGEST_PROBATION)))


def truth(rows: int, windows: Sequence[tuple[int, int]]) -> Truth:
    """Return the labels of a series; a window is given by the indices of its first and last row."""
    places = np.arange(rows)
    worth, window = np.full(rows, -1.0), np.full(rows, OUTSIDE, np.int64)
    for number, (first, last) in enumerate(windows):
        length = float(last - first + 1)
        inside = (places >= first) & (places <= last)
        worth[inside] = _sigmoid((places[inside] - last - 1) / length) / _sigmoid(np.array(-1.0))
        window[inside] = number
        following = windows[number + 1][0] if number + 1 < len(windows) else rows
        after = (places > last) & (places < following)
        # A window of one row gives no unit of distance: all rows after it count as far.
        worth[after] = _sigmoid((places[after] - last) / (length - 1.0)) if length > 1.0 else -1.0
    window[: probation(rows)] = UNSCORED
    return Truth(worth, window, len(windows))


def _sigmoid(place: FloatVector) -> FloatVector:
    """Return the weight of a relative position: 1 far before 0, 0 at 0, -1 beyond 3."""
    curve = 2.0 / (1.0 + np.exp(5.0 * np.minimum(place, 3.0))) - 1.0
    return np.where(place > 3.0, -1.0, curve)


def at(truths: Sequence[Truth], scores: Sequence[FloatVector], profile: str, threshold: float) -> Result:
    """Return the result with alerts for scores ≥ `threshold`; NaN is never an alert."""
    thresholds, raw = _curve(truths, scores, PROFILES[profile])
    reached = int(np.flatnonzero(thresholds >= threshold)[-1])
    return _result(truths, scores, profile, threshold, float(raw[reached]))


def best(truths: Sequence[Truth], scores: Sequence[FloatVector], profile: str) -> Result:
    """Return the result at the threshold that is best for these labels, as published by NAB."""
    thresholds, raw = _curve(truths, scores, PROFILES[profile])
    place = int(np.argmax(raw))
    return _result(truths, scores, profile, float(thresholds[place]), float(raw[place]))


def _curve(
    truths: Iterable[Truth], scores: Iterable[FloatVector], profile: Profile
) -> tuple[FloatVector, FloatVector]:
    """Return thresholds, descending from infinity, and the raw score of the corpus at each."""
    steps = [_steps(label, series, profile) for label, series in zip(truths, scores, strict=True)]
    heights = np.concatenate([np.zeros(0), *(height for height, _, _ in steps)])
    gains = np.concatenate([np.zeros(0), *(gain for _, gain, _ in steps)])
    nothing = sum(silent for _, _, silent in steps)
    order = np.argsort(-heights, kind="stable")
    heights, earned = heights[order], nothing + np.cumsum(gains[order])
    last = np.flatnonzero(np.append(heights[1:] != heights[:-1], True)[: len(heights)])
    return np.append(np.inf, heights[last]), np.append(nothing, earned[last])


def _steps(label: Truth, scores: FloatVector, profile: Profile) -> tuple[FloatVector, FloatVector, float]:
    """Return the thresholds at which the raw score of a series changes, the changes, and the score without alerts."""
    if len(scores) != len(label.worth):
        raise ValueError(f"{len(scores)} scores for a series of {len(label.worth)} rows")
    height = np.where(np.isnan(scores), -np.inf, scores)
    outside = np.flatnonzero(label.window == OUTSIDE)
    heights, gains, silent = [height[outside]], [label.worth[outside] * profile.false_alert], 0.0
    for number in range(label.windows):
        rows = np.flatnonzero(label.window == number)
        if not len(rows):  # the whole window is within the probation
            continue
        silent -= profile.miss
        rows = rows[np.argsort(-height[rows], kind="stable")]
        earned = np.maximum.accumulate(np.maximum(label.worth[rows] * profile.hit, -profile.miss))
        heights.append(height[rows])
        gains.append(np.diff(earned, prepend=-profile.miss))
    return np.concatenate(heights), np.concatenate(gains), silent


def _result(
    truths: Sequence[Truth], scores: Sequence[FloatVector], profile: str, threshold: float, raw: float
) -> Result:
    rules, windows = PROFILES[profile], sum(label.windows for label in truths)
    hits = misses = false_alerts = 0
    for label, series in zip(truths, scores, strict=True):
        alerts = series >= threshold
        false_alerts += int(np.sum(alerts & (label.window == OUTSIDE)))
        scored = set(label.window[label.window >= 0].tolist())
        found = set(label.window[alerts & (label.window >= 0)].tolist())
        hits, misses = hits + len(found), misses + len(scored - found)
    if not windows:
        return Result(float("nan"), threshold, hits, misses, false_alerts)
    score = 100.0 * (raw + rules.miss * windows) / (windows * (rules.hit + rules.miss))
    return Result(score, threshold, hits, misses, false_alerts)
