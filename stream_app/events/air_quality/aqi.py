"""The U.S. Air Quality Index, calculated from hourly concentrations for many readings at a time.

Source of every formula and number, unless a line says otherwise: U.S. EPA, Technical Assistance Document
for the Reporting of Daily Air Quality, EPA-454/B-24-002 (May 2024), and 40 CFR Part 58 Appendix G as of then.

A window is an array (n, w): column 0 is the current hour, column j the hour j hours before it, NaN where
missing. Everything here is row-wise, and a row's bits do not depend on the rows beside it: sums go over the
hours in a fixed order, and powers are products (`aqi_kernel`), because `numpy.sum` may regroup its terms by shape
and `numpy.power` may round differently in its vector loop and in the remainder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from stream_app.events.air_quality import aqi_kernel as kernel

Floats = NDArray[np.float64]
Texts = NDArray[np.object_]

# The volume of a mole of gas in litres at 25 °C and 1 atm, EPA's reference conditions for gases (40 CFR 50.3).
MOLAR_VOLUME = 24.45
MOLAR_MASS: Mapping[str, float] = {"o3": 48.00, "co": 28.01, "so2": 64.07, "no2": 46.01}

# Compensates binary rounding before a truncation: the mean of twelve times 9.1 is slightly below 9.1, which would be
# another category. No instrument resolves a millionth of a step.
_SLACK = 1e-6

# The index at the lower and at the upper breakpoint of each row of the breakpoint table.
_FEET = (0, 51, 101, 151, 201, 301)
_HEADS = (50, 100, 150, 200, 300, 500)

CATEGORIES = (
    "Good",
    "Moderate",
    "Unhealthy for Sensitive Groups",
    "Unhealthy",
    "Very Unhealthy",
    "Hazardous",
)


@dataclass(frozen=True, slots=True)
class Scale:
    """One column of the breakpoint table (EPA-454/B-24-002, table 6).

    Concentrations are truncated to whole steps, `steps` of which make one unit (µg/m³ for particles, ppb for
    gases). `heads` are the upper breakpoints in steps; each row begins one step above the row before it, the
    first at `start`. `first` is the table row of `heads[0]`. `beyond` says whether the last row's
    line goes on past the table (index above 500) or the index holds at the last row's head.
    """

    steps: float
    heads: tuple[int, ...]
    start: int = 0
    first: int = 0
    beyond: bool = True


# Above 300 there is one row since May 2024, 301 to 500; its head is the concentration for an index of 500.
PM25 = Scale(10.0, (90, 354, 554, 1254, 2254, 3254))
PM10 = Scale(1.0, (54, 154, 254, 354, 424, 604))
CO = Scale(0.01, (44, 94, 124, 154, 304, 504))
NO2 = Scale(1.0, (53, 100, 360, 649, 1249, 2049))
# Above 200 the index of SO2 requires a 24-hour mean of 305 ppb or more; for a single hour this high it is 200.
# The window is shorter than a day, so the index holds at 200, which then reads "200 or more".
SO2 = Scale(1.0, (35, 75, 185, 304), beyond=False)
# Eight-hour ozone defines no index above 300, one-hour ozone none below 101; `ozone_index` joins the two.
O3_8H = Scale(1.0, (54, 70, 85, 105, 200), beyond=False)
O3_1H = Scale(1.0, (164, 204, 404, 604), start=125, first=2)


def ppb(gas: str, micrograms: Floats) -> Floats:
    """Convert µg/m³ of `gas` ("o3", "co", "so2", "no2") to parts per billion, at 25 °C and 1 atm.

    Any shape; NaN stays NaN. Raises KeyError on another gas.
    """
    return micrograms * (MOLAR_VOLUME / MOLAR_MASS[gas])


def index(scale: Scale, concentration: Floats) -> Floats:
    """Return the index of a pollutant: integers as floats, NaN where missing or below the scale's start.

    Equation 1 of the source on the truncated concentration, rounded to the nearest whole number, halves up.
    `concentration` is (n,), in the scale's unit.
    """
    out = np.empty(len(concentration))
    values = np.ascontiguousarray(concentration, dtype=np.float64)
    kernel.index(values, scale.steps, _SLACK, _table(scale), scale.beyond, out)
    return out


@cache
def _table(scale: Scale) -> Floats:
    """Return the scale's rows, shape (4, rows): lower and upper breakpoints in steps, lower and upper indices."""
    heads = scale.heads
    feet = (scale.start, *(head + 1 for head in heads[:-1]))
    last = scale.first + len(heads)
    return np.array([feet, heads, _FEET[scale.first : last], _HEADS[scale.first : last]], dtype=np.float64)


def nowcast(window: Floats) -> Floats:
    """Return the NowCast of particles (n,), in the unit of `window` (n, 12): a mean that favours recent hours.

    An hour weighs w to the power of its age, w = 1 − (largest − smallest) / largest but at least 0.5; a
    missing hour weighs nothing. NaN unless at least two of the three latest hours are present.
    """
    out = np.empty(len(window))
    kernel.nowcast(_uniform(window), out)
    return out


def mean(window: Floats, hours: int = 8, needed: int = 6) -> Floats:
    """Return the mean of the latest `hours` hours of `window`, in its unit; NaN with fewer than `needed` of them.

    Six of eight is EPA's 75 % completeness for an 8-hour mean (40 CFR 50.8 for CO, Appendix U for ozone).
    """
    out = np.empty(len(window))
    kernel.mean(_uniform(window), hours, needed, out)
    return out


def _uniform(window: Floats) -> Floats:
    """Return the window as a contiguous, read-only array, the only variant for which the kernel is compiled."""
    array = np.ascontiguousarray(window, dtype=np.float64).view()
    array.flags.writeable = False
    return array


def ozone_index(window: Floats) -> Floats:
    """Return the index of ozone for a window in ppb: the higher of the 8-hour and the 1-hour index.

    The hour counts from 125 ppb up. Above 200 ppb of 8-hour mean the source defines no 8-hour index and takes
    the hour's; the 8-hour index holds at 300 here, so that the index does not fall as the air gets worse.
    """
    return np.fmax(index(O3_8H, mean(window)), index(O3_1H, window[:, 0]))


def highest(indices: Mapping[str, Floats]) -> tuple[Floats, Texts]:
    """Return the highest index of each row, and its pollutant: the first of `indices` that reaches it.

    NaN and None where no pollutant has an index. Raises ValueError when `indices` is empty.
    """
    table = np.stack(list(indices.values()))
    top = np.fmax.reduce(table, axis=0)
    names = _texts(list(indices))
    return top, _blank(names[np.where(np.isnan(table), -1.0, table).argmax(axis=0)], top)


def category(aqi: Floats) -> Texts:
    """Return the name of each index's category, "Hazardous" from 301 upwards; None where the index is NaN."""
    return _blank(_texts(CATEGORIES)[np.searchsorted(_HEADS[:-1], aqi)], aqi)


def _texts(values: list[str] | tuple[str, ...]) -> Texts:
    return np.array(values, dtype=object)


def _blank(texts: Texts, numbers: Floats) -> Texts:
    texts[np.isnan(numbers)] = None
    return texts
