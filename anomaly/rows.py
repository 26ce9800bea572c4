"""What every detector does first with the rows it is given."""

from __future__ import annotations

import numpy as np

from anomaly.detector import FloatMatrix

# Beyond this a square does not fit into a double: such a value counts as missing, as infinities do.
LARGEST = 1e150


def checked(X: FloatMatrix, rows: int, features: int) -> FloatMatrix:
    """`X` as a compiled loop takes it; copied only where it must be. Raises ValueError on its shape."""
    if X.shape != (rows, features):
        raise ValueError(
            f"X has the shape {X.shape}: one row for each of {rows} keys and "
            f"one column for each of {features} features are needed"
        )
    return np.require(X, np.float64, ["C", "W"])  # one type: a loop is compiled for each


def usable(X: FloatMatrix, features: int, largest: float = LARGEST) -> FloatMatrix:
    """A copy of `X` in which every value that cannot be reckoned with is NaN. Raises ValueError on its shape."""
    if X.ndim != 2 or X.shape[1] != features:
        raise ValueError(f"X has the shape {X.shape}: one column for each of {features} features is needed")
    return np.ascontiguousarray(np.where(np.abs(X) <= largest, X, np.nan))
