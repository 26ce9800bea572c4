"""The vectorised AQI against a reference implementation: one reading at a time, in exact fractions."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import floor

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream_app.events.air_quality import aqi

Value = float | None
ROWS = [(0, 50), (51, 100), (101, 150), (151, 200), (201, 300), (301, 500)]

# EPA-454/B-24-002, table 6 (and its note on 500), in the units of the table: lowest and highest value of each row.
PM25 = [("0.0", "9.0"), ("9.1", "35.4"), ("35.5", "55.4"), ("55.5", "125.4"), ("125.5", "225.4")]
PM25 += [("225.5", "325.4")]
PM10 = [("0", "54"), ("55", "154"), ("155", "254"), ("255", "354"), ("355", "424"), ("425", "604")]
O3_8H = [("0.000", "0.054"), ("0.055", "0.070"), ("0.071", "0.085"), ("0.086", "0.105"), ("0.106", "0.200")]
O3_1H = [("0.125", "0.164"), ("0.165", "0.204"), ("0.205", "0.404"), ("0.405", "0.604")]
CO = [("0.0", "4.4"), ("4.5", "9.4"), ("9.5", "12.4"), ("12.5", "15.4"), ("15.5", "30.4"), ("30.5", "50.4")]
SO2 = [("0", "35"), ("36", "75"), ("76", "185"), ("186", "304")]
NO2 = [("0", "53"), ("54", "100"), ("101", "360"), ("361", "649"), ("650", "1249"), ("1250", "2049")]


def truncated(concentration: Fraction, places: int) -> Fraction:
    steps = concentration * 10**places
    return Fraction(floor(steps + Fraction(1, 10**6)), 10**places)


def plain_index(
    concentration: Fraction | None,
    places: int,
    breakpoints: Sequence[tuple[str, str]],
    rows: Sequence[tuple[int, int]] = ROWS,
    beyond: bool = True,
) -> int | None:
    if concentration is None:
        return None
    value = truncated(concentration, places)
    if value < Fraction(breakpoints[0][0]):
        return None
    for (low, high), (index_low, index_high) in zip(breakpoints, rows, strict=False):
        last = (low, high) == breakpoints[-1]
        if value <= Fraction(high) or (last and beyond):
            slope = (index_high - index_low) / (Fraction(high) - Fraction(low))
            return floor(slope * (value - Fraction(low)) + index_low + Fraction(1, 2))
    return rows[len(breakpoints) - 1][1]


def plain_nowcast(hours: Sequence[Value]) -> Fraction | None:
    if sum(hour is not None for hour in hours[:3]) < 2:
        return None
    known = {age: Fraction(hour) for age, hour in enumerate(hours) if hour is not None}
    largest, smallest = max(known.values()), min(known.values())
    scaled_rate_of_change = (largest - smallest) / largest if largest else Fraction(0)
    weight = max(1 - scaled_rate_of_change, Fraction(1, 2))
    weights = {age: Fraction(weight**age) for age in known}
    weighted = sum((value * weights[age] for age, value in known.items()), Fraction(0))
    return weighted / sum(weights.values(), Fraction(0))


def plain_mean(hours: Sequence[Value]) -> Fraction | None:
    known = [Fraction(hour) for hour in hours[:8] if hour is not None]
    return sum(known, Fraction(0)) / len(known) if len(known) >= 6 else None


def ppm(gas: str, micrograms: Fraction | None) -> Fraction | None:
    molar_mass = {"o3": "48.00", "co": "28.01", "so2": "64.07", "no2": "46.01"}[gas]
    if micrograms is None:
        return None
    return micrograms * Fraction("24.45") / Fraction(molar_mass) / 1000


def plain_ozone(hours: Sequence[Value]) -> int | None:
    current = None if hours[0] is None else Fraction(hours[0])
    of_the_hour = plain_index(ppm("o3", current), 3, O3_1H, ROWS[2:])
    of_eight_hours = plain_index(ppm("o3", plain_mean(hours)), 3, O3_8H, beyond=False)
    return max((index for index in (of_the_hour, of_eight_hours) if index is not None), default=None)


def plain(values: np.ndarray) -> list[int | None]:
    return [None if np.isnan(value) else int(value) for value in values]


def array(rows: Sequence[Sequence[Value]]) -> np.ndarray:
    return np.array([[np.nan if value is None else value for value in row] for row in rows])


def hours_up_to(most: int) -> st.SearchStrategy[list[Value]]:
    """Twelve hourly values in hundredths, low and high equally often, some missing."""
    ranges = st.sampled_from([most // 100, most // 10, most])
    hundredths = ranges.flatmap(lambda top: st.integers(0, 100 * top)).map(lambda number: number / 100)
    return st.lists(st.one_of(hundredths, hundredths, hundredths, st.none()), min_size=12, max_size=12)


def batches(most: int) -> st.SearchStrategy[list[list[Value]]]:
    return st.lists(hours_up_to(most), min_size=1, max_size=12)


@given(batches(1_000))
@example([[35.9] * 12, [9.05] * 12, [0.0] * 12])
@settings(deadline=None)
def test_particles(rows: list[list[Value]]) -> None:
    nowcast = aqi.nowcast(array(rows))
    reference = [plain_nowcast(row) for row in rows]
    exact = [np.nan if value is None else float(value) for value in reference]
    np.testing.assert_allclose(nowcast, exact, rtol=1e-12)
    assert plain(aqi.index(aqi.PM25, nowcast)) == [plain_index(value, 1, PM25) for value in reference]
    assert plain(aqi.index(aqi.PM10, nowcast)) == [plain_index(value, 0, PM10) for value in reference]


@given(batches(2_000))
@settings(deadline=None)
def test_ozone(rows: list[list[Value]]) -> None:
    assert plain(aqi.ozone_index(aqi.ppb("o3", array(rows)))) == [plain_ozone(row) for row in rows]


@given(batches(100_000))
@settings(deadline=None)
def test_carbon_monoxide(rows: list[list[Value]]) -> None:
    found = aqi.index(aqi.CO, aqi.ppb("co", aqi.mean(array(rows))))
    assert plain(found) == [plain_index(ppm("co", plain_mean(row)), 1, CO) for row in rows]


@given(hours_up_to(10_000))
@settings(deadline=None)
def test_gases_of_one_hour(hours: list[Value]) -> None:
    values = array([hours])[0]
    exact = [None if hour is None else Fraction(hour) * 1000 for hour in hours]

    def expected(gas: str, breakpoints: Sequence[tuple[str, str]], beyond: bool) -> list[int | None]:
        return [plain_index(ppm(gas, value), 0, breakpoints, beyond=beyond) for value in exact]

    assert plain(aqi.index(aqi.SO2, aqi.ppb("so2", values))) == expected("so2", SO2, beyond=False)
    assert plain(aqi.index(aqi.NO2, aqi.ppb("no2", values))) == expected("no2", NO2, beyond=True)
