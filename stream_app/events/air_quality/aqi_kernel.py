"""Compiled code of `aqi`: loops over readings and the hours of their windows.

The bits of a result do not depend on other readings: operations are neither regrouped nor fused.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anomaly.kernels.compiled import compiled

Floats = NDArray[np.float64]


@compiled
def nowcast(window: Floats, out: Floats) -> None:
    """`aqi.nowcast` of `window` (n, w), the current hour first, into `out` (n,)."""
    for row in range(len(out)):
        weight = weight_of(window, row)
        total, weights, power = 0.0, 0.0, 1.0
        latest = 0
        for hour in range(window.shape[1]):
            value = window[row, hour]
            if not np.isnan(value):
                total += value * power
                weights += power
                latest += hour < 3
            power *= weight
        out[row] = total / weights if latest >= 2 else np.nan


@compiled
def weight_of(window: Floats, row: int) -> float:
    """1 − (largest − smallest) / largest, at least 0.5; 1 where no hour is above 0."""
    largest, smallest = np.nan, np.nan
    for hour in range(window.shape[1]):
        value = window[row, hour]
        if not np.isnan(value):
            largest = value if np.isnan(largest) or value > largest else largest
            smallest = value if np.isnan(smallest) or value < smallest else smallest
    if not largest > 0.0:
        return 1.0
    weight = 1.0 - (largest - smallest) / largest
    return 0.5 if weight < 0.5 else weight


@compiled
def mean(window: Floats, hours: int, needed: int, out: Floats) -> None:
    """`aqi.mean` of the latest hours of `window` (n, w) into `out` (n,)."""
    for row in range(len(out)):
        total, known = 0.0, 0
        for hour in range(min(hours, window.shape[1])):
            value = window[row, hour]
            if not np.isnan(value):
                total += value
                known += 1
        out[row] = total / known if known >= needed else np.nan


@compiled
def index(
    concentration: Floats, steps: float, slack: float, table: Floats, beyond: bool, out: Floats
) -> None:
    """`aqi.index` by `table` (4, rows): lower and upper breakpoints in steps, lower and upper indices."""
    rows = table.shape[1]
    for at in range(len(out)):
        step = np.floor(concentration[at] * steps + slack)
        if not beyond and step > table[1, rows - 1]:
            step = table[1, rows - 1]
        row = 0
        while row < rows - 1 and table[1, row] < step:
            row += 1
        foot, head, low, high = table[0, row], table[1, row], table[2, row], table[3, row]
        # The products are integers, so that a half is exact before rounding.
        rise = (high - low) * (step - foot) / (head - foot)
        out[at] = np.floor(low + rise + 0.5) if step >= table[0, 0] else np.nan
