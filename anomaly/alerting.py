"""Explanations of scores: the feature that contributed most, its distance, and the severity of an alert."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from anomaly.detector import FloatMatrix, FloatVector, Times

CHANNEL_NAMES = ("value", "average", "hour")
# By the ratio of the score to the threshold.
SEVERITIES = ((4.0, "high"), (2.0, "medium"), (1.0, "low"))


class Assessment(NamedTuple):
    """Scores of n rows, computed before the rows were learnt, and what contributed most to each.

    `feature` and `channel` are the indices of the largest contribution, -1 if there is none. `observed` and `nearest`
    are in the unit of the feature and depend on the channel:

    value    the value, and the nearest value ever seen of the device
    average  the moving average, and the nearest moving average seen
    hour     the deviation from the usual value at that hour of the day, and the nearest deviation seen

    `usual` is the mean distance of the device's values to the nearest earlier one. Where a score is 0 the other
    columns are undefined.
    """

    scores: FloatVector
    feature: NDArray[np.int64]
    channel: NDArray[np.int64]
    observed: FloatVector
    nearest: FloatVector
    usual: FloatVector


class Explanation(NamedTuple):
    """The explanation of the score of one row."""

    score: float
    severity: str | None
    feature: str
    channel: str
    observed: float
    nearest: float
    distance: float
    usual: float

    def as_dict(self) -> dict[str, object]:
        """Return the fields and the text as JSON values, in the form used by alerts."""
        return {**self._asdict(), "text": str(self)}

    def __str__(self) -> str:
        if self.channel == "value":
            what = f"{self.feature} is {self.observed:g}; the nearest value seen is {self.nearest:g}"
        elif self.channel == "average":
            what = f"{self.feature} averages {self.observed:g}; the nearest average seen is {self.nearest:g}"
        else:
            what = (
                f"{self.feature} is {self.observed:+g} from usual at this hour; "
                f"the nearest such deviation seen is {self.nearest:+g}"
            )
        return f"{what}: {self.distance:g} away, where {self.usual:.3g} is usual"


@runtime_checkable
class Explaining(Protocol):
    """A detector that explains its scores."""

    threshold: float

    def assess_many(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> Assessment:
        """Score and then learn n rows in order, and return what contributed most to each score."""
        ...

    def explain(self, assessment: Assessment, row: int) -> Explanation | None:
        """Return the explanation of one row, None if nothing was compared."""
        ...


def explain_alerts(detector: Explaining, assessment: Assessment) -> NDArray[np.object_]:
    """Return (n,) objects: the explanation of each alert as a dict, None for rows below the threshold."""
    explanations = np.empty(len(assessment.scores), dtype=object)  # filled with None
    for row in np.flatnonzero(assessment.scores >= detector.threshold).tolist():
        explanation = detector.explain(assessment, row)
        explanations[row] = None if explanation is None else explanation.as_dict()
    return explanations


def severity(score: float, threshold: float) -> str | None:
    """Return `low`, `medium` or `high`, or None below the threshold."""
    return next((name for times, name in SEVERITIES if score >= times * threshold), None)


def explain(
    assessment: Assessment, row: int, features: Sequence[str], threshold: float
) -> Explanation | None:
    """Return the explanation of one row, None if all its features are missing or seen for the first time."""
    number = int(assessment.feature[row])
    if number < 0:
        return None
    channel = CHANNEL_NAMES[int(assessment.channel[row])]
    observed, nearest = float(assessment.observed[row]), _rounded(assessment.nearest[row])
    return Explanation(
        score=float(assessment.scores[row]),
        severity=severity(float(assessment.scores[row]), threshold),
        feature=features[number],
        channel=channel,
        observed=observed if channel == "value" else _rounded(observed),
        nearest=nearest,
        distance=_rounded(abs(observed - nearest)),
        usual=_rounded(assessment.usual[row]),
    )


def _rounded(number: float) -> float:
    """Round to seven digits, the precision of the stored values (float32)."""
    return float(f"{number:.7g}")
