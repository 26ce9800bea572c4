"""Validation of the rows that a detector receives."""

from __future__ import annotations

import numpy as np

from anomaly.detector import FloatMatrix

# The square of a larger value overflows a double: such values count as missing, as infinities do.
LARGEST = 1e150


def checked(X: FloatMatrix, rows: int, features: int) -> FloatMatrix:
    """Return `X` in the memory layout of compiled loops, copied only if necessary.

    Raises ValueError if the shape is not (rows, features).
    """
    if X.shape != (rows, features):
        raise ValueError(f"X has shape {X.shape} (expected {rows} rows and {features} features)")
    # One layout only: Numba compiles a loop again for each layout.
    return np.require(X, np.float64, ["C", "W"])


def usable(X: FloatMatrix, features: int, largest: float = LARGEST) -> FloatMatrix:
    """Return a copy of `X` with NaN in place of values that are infinite or too large.

    Raises ValueError if `X` does not have one column per feature.
    """
    if X.ndim != 2 or X.shape[1] != features:
        raise ValueError(f"X has shape {X.shape} (expected {features} features)")
    return np.ascontiguousarray(np.where(np.abs(X) <= largest, X, np.nan))
