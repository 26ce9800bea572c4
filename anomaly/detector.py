"""What a detector is: a protocol of a few methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

FloatMatrix = NDArray[np.float64]
FloatVector = NDArray[np.float64]
Times = NDArray[Any]  # datetime64 of any unit, NaT where unknown
Keep = Callable[[str], bool]


class StateError(ValueError):
    """A stored state that cannot be used: damaged, or written by another version. Nothing of it was taken."""


@runtime_checkable
class Detector(Protocol):
    """An online detector with one independent state per key.

    Scores are ≥ 0, higher is more anomalous, 0 while it warms up. A score does not depend on how the rows were
    split into calls: `process_many` equals a loop of score, then learn, per key, in order. A call that raises has
    learnt nothing: whoever calls may leave out the row that it raised on, and go on.
    """

    threshold: float

    def process_many(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector:
        """Score then learn n rows in order; returns (n,) scores.

        `X` is (n, features), NaN where missing; `times` (n,) datetime64 tells when each row was measured, for
        detectors that know the hour of the day.
        """
        ...

    def snapshot(self) -> bytes:
        """The state of every key."""
        ...

    def restore(self, state: bytes, keep: Keep = ...) -> None:
        """Add the keys of a snapshot for which `keep(key)` holds to those held already."""
        ...


DetectorFactory = Callable[[Sequence[str]], Detector]
