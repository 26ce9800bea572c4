"""Row-by-row air_quality calculation in plain Python, with the same formulas and order of operations.

See `air_quality.aqi` for the sources of the formulas. NaN means missing; the breakpoint tables are shared.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from stream_app.events.air_quality import aqi
from stream_app.events.air_quality.event import COMPASS

NAN = math.nan
_FEET, _HEADS = (0, 51, 101, 151, 201, 301), (50, 100, 150, 200, 300, 500)
_FACTORS = {gas: aqi.MOLAR_VOLUME / mass for gas, mass in aqi.MOLAR_MASS.items()}


def _away(component: float) -> float:
    return 0.0 - round(component, 15)


_WIND = {
    name: (_away(math.sin(math.radians(22.5 * at))), _away(math.cos(math.radians(22.5 * at))))
    for at, name in enumerate(COMPASS)
}


def _scale(scale: aqi.Scale) -> tuple[Any, ...]:
    feet = (scale.start, *(head + 1 for head in scale.heads[:-1]))
    return (
        scale.steps,
        scale.heads,
        feet,
        _FEET[scale.first :],
        _HEADS[scale.first :],
        scale.start,
        scale.beyond,
    )


def _index(scale: tuple[Any, ...], concentration: float) -> float:
    if concentration != concentration:
        return NAN
    per_unit, heads, feet, index_feet, index_heads, start, beyond = scale
    steps = math.floor(concentration * per_unit + 1e-6)
    if not beyond:
        steps = min(steps, heads[-1])
    if steps < start:
        return NAN
    row = min(bisect_left(heads, steps), len(heads) - 1)
    rise = (index_heads[row] - index_feet[row]) * (steps - feet[row]) / (heads[row] - feet[row])
    return float(math.floor(index_feet[row] + rise + 0.5))


PM25, PM10, CO, NO2, SO2, O3_8H, O3_1H = map(
    _scale, (aqi.PM25, aqi.PM10, aqi.CO, aqi.NO2, aqi.SO2, aqi.O3_8H, aqi.O3_1H)
)


def _nowcast(hours: Sequence[float]) -> float:
    known = [hour for hour in hours if hour == hour]
    if sum(hour == hour for hour in hours[:3]) < 2:
        return NAN
    largest = max(known)
    weight = max(1.0 - (largest - min(known)) / largest if largest > 0.0 else 1.0, 0.5)
    total = weights = 0.0
    power = 1.0
    for hour in hours:
        if hour == hour:
            total += hour * power
            weights += power
        power *= weight
    return total / weights


def _mean(hours: Sequence[float]) -> float:
    total = known = 0.0
    for hour in hours[:8]:
        if hour == hour:
            total += hour
            known += 1.0
    return total / known if known >= 6 else NAN


def _higher(one: float, other: float) -> float:
    if one != one:
        return other
    return one if other != other or one >= other else other


def calculate(row: dict[str, Any], windows: dict[str, list[float]]) -> dict[str, Any]:
    """Return the calculated columns of one row, as `air_quality.calculate`; `windows` are 12 hours each."""
    pm25, pm10 = _nowcast(windows["pm25"]), _nowcast(windows["pm10"])
    ozone = [hour * _FACTORS["o3"] for hour in windows["o3"]]
    indices = {
        "pm25": _index(PM25, pm25),
        "pm10": _index(PM10, pm10),
        "o3": _higher(_index(O3_8H, _mean(ozone)), _index(O3_1H, ozone[0])),
        "co": _index(CO, _mean([hour * _FACTORS["co"] for hour in windows["co"]])),
        "so2": _index(SO2, _number(row["so2"]) * _FACTORS["so2"]),
        "no2": _index(NO2, _number(row["no2"]) * _FACTORS["no2"]),
    }
    top, dominant = NAN, None
    for name, value in indices.items():
        if value == value and not value <= top:
            top, dominant = value, name
    east, north = _wind(_number(row["wind_speed"]), row["wind_direction"])
    return {
        **{f"aqi_{name}": value for name, value in indices.items()},
        "nowcast_pm25": pm25,
        "nowcast_pm10": pm10,
        "aqi": top,
        "dominant": dominant,
        "category": None if dominant is None else aqi.CATEGORIES[bisect_left(_HEADS[:-1], top)],
        "wind_east": east,
        "wind_north": north,
    }


def _wind(speed: float, direction: str | None) -> tuple[float, float]:
    east, north = (NAN, NAN) if direction is None else _WIND[direction]
    return (0.0, 0.0) if speed == 0.0 else (speed * east, speed * north)


def _number(value: float | None) -> float:
    return NAN if value is None else value
