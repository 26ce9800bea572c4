"""The detector protocol, and the types of its arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

FloatMatrix = NDArray[np.float64]
FloatVector = NDArray[np.float64]
# Arrays whose element type varies, such as the columns of a table or times of any unit.
AnyArray = NDArray[Any]
AnyDType = np.dtype[Any]
Times = AnyArray  # datetime64 of any unit, NaT where unknown
Keep = Callable[[str], bool]


class StateError(ValueError):
    """A stored state is damaged or was written by an incompatible version; nothing of it was loaded."""


@runtime_checkable
class Detector(Protocol):
    """An online detector with one independent state per key.

    Scores are ≥ 0, higher means more anomalous, and 0 during warm-up. Scores do not depend on how rows are split into
    calls: `process_many` is equivalent to scoring and then learning each row of each key in order. A call that raises
    has learnt nothing, so the caller may skip the row that caused the error and continue.
    """

    threshold: float

    def process_many(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector:
        """Score and then learn n rows in order; returns (n,) scores.

        `X` is (n, features), NaN where missing. `times` (n,) datetime64 are the times of measurement, for detectors
        that take the hour of the day into account.
        """
        ...

    def snapshot(self) -> bytes:
        """Serialize the state of every key."""
        ...

    def restore(self, state: bytes, keep: Keep = ...) -> None:
        """Load the keys of a snapshot for which `keep(key)` is true; other keys keep their state."""
        ...


DetectorFactory = Callable[[Sequence[str]], Detector]
