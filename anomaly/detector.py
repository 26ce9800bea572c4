"""What a detector is: a protocol of a few methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

FloatMatrix = NDArray[np.float64]
FloatVector = NDArray[np.float64]
Keep = Callable[[str], bool]


@runtime_checkable
class Detector(Protocol):
    """An online detector with one independent state per key.

    Scores are ≥ 0, higher is more anomalous, 0 while it warms up. A score does not depend on how the rows were
    split into calls: `process_many` equals a loop of score, then learn, per key, in order.
    """

    threshold: float

    def process_many(self, keys: Sequence[str], X: FloatMatrix) -> FloatVector:
        """Score then learn n rows in order. `X` is (n, features), NaN where missing; returns (n,) scores."""
        ...

    def snapshot(self) -> bytes:
        """The state of every key."""
        ...

    def restore(self, state: bytes, keep: Keep = ...) -> None:
        """Add the keys of a snapshot for which `keep(key)` holds to those held already."""
        ...


DetectorFactory = Callable[[Sequence[str]], Detector]
