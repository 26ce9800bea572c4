"""What a detector says of a row besides its score: what stood out, how far, and how much it matters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from anomaly.detector import FloatMatrix, FloatVector, Times

CHANNEL_NAMES = ("value", "average", "hour")
# An alert is as severe as its score is above the threshold.
SEVERITIES = ((4.0, "high"), (2.0, "medium"), (1.0, "low"))


class Judgement(NamedTuple):
    """n rows judged before they were learnt. Where a score is 0 the other columns mean nothing.

    `feature` and `channel` number what contributed most (-1: nothing did). `observed` and `nearest` are in the
    feature's unit: for the channel `value` the value and the nearest ever seen of the device, for `average` its
    moving average and the nearest one seen, for `hour` how far it is from usual at that hour of the day, and the
    nearest such distance seen. `usual` is how far from what was seen before the device's values usually are.
    """

    scores: FloatVector
    feature: NDArray[np.int64]
    channel: NDArray[np.int64]
    observed: FloatVector
    nearest: FloatVector
    usual: FloatVector


class Explanation(NamedTuple):
    """Why one row scored what it did."""

    score: float
    severity: str | None
    feature: str
    channel: str
    observed: float
    nearest: float
    distance: float
    usual: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values, the sentence among them, as an alert carries them."""
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
    """A detector that can say why."""

    threshold: float

    def judge_many(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> Judgement:
        """`process_many`, with what stood out in each row."""
        ...

    def explain(self, judgement: Judgement, row: int) -> Explanation | None:
        """Why a row scored what it did."""
        ...


def alerts_explained(detector: Explaining, judgement: Judgement) -> NDArray[np.object_]:
    """(n,) objects: of each row that is an alert its explanation as a dict, else None."""
    told = np.empty(len(judgement.scores), dtype=object)  # of None
    for row in np.flatnonzero(judgement.scores >= detector.threshold).tolist():
        why = detector.explain(judgement, row)
        told[row] = None if why is None else why.as_dict()
    return told


def severity(score: float, threshold: float) -> str | None:
    """`low`, `medium` or `high`; None below the threshold."""
    return next((name for times, name in SEVERITIES if score >= times * threshold), None)


def explain(judgement: Judgement, row: int, features: Sequence[str], threshold: float) -> Explanation | None:
    """The explanation of one row, None where there is nothing to explain (every feature missing or first seen)."""
    number = int(judgement.feature[row])
    if number < 0:
        return None
    channel = CHANNEL_NAMES[int(judgement.channel[row])]
    observed, nearest = float(judgement.observed[row]), _held(judgement.nearest[row])
    return Explanation(
        score=float(judgement.scores[row]),
        severity=severity(float(judgement.scores[row]), threshold),
        feature=features[number],
        channel=channel,
        observed=observed if channel == "value" else _held(observed),
        nearest=nearest,
        distance=_held(abs(observed - nearest)),
        usual=_held(judgement.usual[row]),
    )


def _held(number: float) -> float:
    """As many digits as are held of a device."""
    return float(f"{number:.7g}")
