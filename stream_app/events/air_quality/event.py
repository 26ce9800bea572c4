"""Hourly air quality readings, and the air quality index calculated from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.detector import AnyArray
from anomaly.nearest import NearestValue
from stream_app.api import Batch, Event, Mask, Rate, Stuck, Window, as_missing
from stream_app.events.air_quality import aqi

# The allowed clock skew of a device into the future. Old readings are not rejected, because replays are normal.
CLOCK_SKEW = np.timedelta64(5, "m")


class Range(NamedTuple):
    """The plausible range of a field, bounds included."""

    low: float
    high: float
    unit: str


# Upper bounds of pollutants exceed the concentration for an index of 500, with a margin for the worst hours of fires
# (pm25), dust storms (pm10) and eruptions (so2); a higher value means a broken sensor or a wrong unit. Bounds of
# weather exceed the records of the World Meteorological Organization; pressure and dew point include high summits.
RANGES: Mapping[str, Range] = {
    "pm25": Range(0, 5_000, "µg/m³"),
    "pm10": Range(0, 10_000, "µg/m³"),
    "so2": Range(0, 50_000, "µg/m³"),
    "no2": Range(0, 5_000, "µg/m³"),
    "co": Range(0, 100_000, "µg/m³"),
    "o3": Range(0, 2_000, "µg/m³"),
    "temperature": Range(-90, 60, "°C"),
    "pressure": Range(300, 1_100, "hPa"),
    "dew_point": Range(-110, 40, "°C"),
    "rain": Range(0, 500, "mm"),
    "wind_speed": Range(0, 115, "m/s"),
}

COMPASS = (
    *("N", "NNE", "NE", "ENE", "E", "ESE", "SE", "SSE"),
    *("S", "SSW", "SW", "WSW", "W", "WNW", "NW", "NNW"),
)
_POINTS: Mapping[str | None, int] = {point: number for number, point in enumerate((*COMPASS, None))}


def _away(component: float) -> float:
    """Negate a component of the direction the wind blows from, rounded to avoid -0 and 6e-17."""
    return 0.0 - round(component, 15)


_BEARINGS = [math.radians(22.5 * number) for number in range(len(COMPASS))]
_EAST = np.array([*(_away(math.sin(bearing)) for bearing in _BEARINGS), math.nan])
_NORTH = np.array([*(_away(math.cos(bearing)) for bearing in _BEARINGS), math.nan])


def verify(batch: Batch) -> dict[str, Mask]:
    """Return each rule's mask, true where the row satisfies it; missing values satisfy every range."""
    rules = {
        f"{name} is from {r.low:g} to {r.high:g} {r.unit}": ~((batch[name] < r.low) | (batch[name] > r.high))
        for name, r in RANGES.items()
    }
    rules["time is at most 5 minutes after arrival"] = batch["time"] <= batch["arrived"] + CLOCK_SKEW
    return rules


def calculate(batch: Batch) -> dict[str, AnyArray]:
    """Return the U.S. AQI of each reading and pollutant, the NowCasts (µg/m³), and the wind components (m/s).

    Indices are integers as floats, NaN with too few hours; the module `aqi` has the formulas and their source.
    Raises KeyError on a wind direction that is not one of the 16 compass points.
    """
    # First, because it can raise: the rest is then not repeated when the rows are evaluated again.
    east, north = wind(batch["wind_speed"], batch["wind_direction"])
    nowcast = {name: aqi.nowcast(batch[f"window.{name}"]) for name in ("pm25", "pm10")}
    indices = {
        "pm25": aqi.index(aqi.PM25, nowcast["pm25"]),
        "pm10": aqi.index(aqi.PM10, nowcast["pm10"]),
        "o3": aqi.ozone_index(aqi.ppb("o3", batch["window.o3"])),
        "co": aqi.index(aqi.CO, aqi.ppb("co", aqi.mean(batch["window.co"]))),
        "so2": aqi.index(aqi.SO2, aqi.ppb("so2", batch["so2"])),
        "no2": aqi.index(aqi.NO2, aqi.ppb("no2", batch["no2"])),
    }
    highest, dominant = aqi.highest(indices)
    return {
        **{f"aqi_{name}": value for name, value in indices.items()},
        **{f"nowcast_{name}": value for name, value in nowcast.items()},
        "aqi": highest,
        "dominant": dominant,
        "category": aqi.category(highest),
        "wind_east": east,
        "wind_north": north,
    }


def wind(speed: NDArray[np.float64], direction: NDArray[np.object_]) -> tuple[aqi.Floats, aqi.Floats]:
    """Return the east and north components of the wind in m/s; `direction` is where the wind blows from.

    Calm air is (0, 0) for any direction; the result is NaN if speed or direction is missing. Raises KeyError on a
    direction that is neither None nor one of `COMPASS`.
    """
    point = np.fromiter(map(_POINTS.__getitem__, direction), dtype=np.intp, count=len(direction))
    return _component(speed, _EAST[point]), _component(speed, _NORTH[point])


def _component(speed: NDArray[np.float64], unit: aqi.Floats) -> aqi.Floats:
    # A single NaN bit pattern, so that the stored bytes do not depend on which operand was NaN.
    product = np.where(speed == 0.0, 0.0, speed * unit)
    return np.where(np.isnan(product), np.nan, product)


# Implausible changes within an hour, and implausible repetitions. A correction sets such values to missing.
CHECKS = (
    Rate("pm25", 250.0),
    Rate("pm10", 400.0),
    Rate("pressure", 12.0),
    Rate("temperature", 12.0),
    Stuck("pressure", 24),
    Stuck("no2", 12),
)

EVENT = Event(
    name="air_quality",
    key="station",
    required=("id", "station", "time"),
    verify=verify,
    calculate=calculate,
    features=("pm25", "pm10", "so2", "no2", "co", "o3"),
    detector=NearestValue,
    sent="sent_at",
    window=Window(("pm25", "pm10", "o3", "co"), size=12),
    checks=CHECKS,
    correct=as_missing(CHECKS),
)
