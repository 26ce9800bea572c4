"""A user's event type: rules, calculated columns, a window, checks, a correction and a detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.nearest import NearestValue, at_most_one_alert
from stream_app.api import Batch, Detector, Event, Mask, Range, Rate, Stuck, Window, as_missing

CHECKS = (
    Range("level", 0.0, 100.0),
    Rate("level", 20.0, timedelta(minutes=10)),
    Stuck("level", 12, besides=(0.0,)),
)


def verify(batch: Batch) -> Mapping[str, Mask]:
    """Accept levels that a tank can have."""
    level = batch["level"]
    return {"level is at most 100": ~(level > 100.0)}


def calculate(batch: Batch) -> Mapping[str, NDArray[Any]]:
    """Derive columns from the row, its window and its previous value."""
    return {
        "share": batch["level"] / 100.0,
        "mean": np.nanmean(batch["window.level"], axis=1),
        "change": batch["level"] - batch["previous.level"],
    }


def detector(features: Sequence[str]) -> Detector:
    """Return the detector of the features."""
    return NearestValue(features, warm_up=100)


EVENT = Event(
    name="tank",
    key="tank",
    required=("id", "tank", "time"),
    verify=verify,
    calculate=calculate,
    features=("level",),
    detector=detector,
    window=Window(("level",), size=6, step=timedelta(minutes=10)),
    previous=("level",),
    checks=CHECKS,
    correct=as_missing(CHECKS),
)
WEEKLY = at_most_one_alert(timedelta(weeks=1), timedelta(minutes=10), max_keys=1_000)
QUIET = Event(name="quiet", key="tank", features=("level",), detector=WEEKLY)
