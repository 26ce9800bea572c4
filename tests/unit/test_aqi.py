"""The AQI against EPA's published examples, and properties of its formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.events.air_quality import aqi
from stream_app.events.air_quality.aqi import CO, NO2, O3_1H, O3_8H, PM10, PM25, SO2, Scale

NAN = np.nan
SCALES = {"pm25": PM25, "pm10": PM10, "co": CO, "no2": NO2, "so2": SO2, "o3 8 h": O3_8H, "o3 1 h": O3_1H}
every_scale = pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES.keys())
lenient = settings(deadline=None)


def one(scale: Scale, concentration: float) -> float:
    return float(aqi.index(scale, np.array([concentration]))[0])


def window(*hours: float, size: int = 12) -> np.ndarray:
    """Latest hour first, missing hours after the given ones."""
    return np.array([[*hours, *[NAN] * (size - len(hours))]])


def table(scale: Scale) -> list[tuple[int, int, int, int]]:
    """Rows (lowest step, highest step, index at it, index at it), written out from the definition of the table."""
    bands = [(0, 50), (51, 100), (101, 150), (151, 200), (201, 300), (301, 500)][scale.first :]
    feet = [scale.start, *(head + 1 for head in scale.heads)]
    return [(foot, head, *band) for foot, head, band in zip(feet, scale.heads, bands, strict=False)]


# EPA 454/B-18-007 (September 2018), page 15: one site's 8-hour ozone, PM2.5 and CO. The rows of the table that the
# example uses are the same in EPA-454/B-24-002 (May 2024).
@pytest.mark.parametrize(
    ("scale", "concentration", "expected"),
    [(O3_8H, 78.53333, 126), (PM25, 35.92431999, 102), (CO, 8475.32711, 90)],
    ids=["ozone 0.07853333 ppm", "PM2.5 35.92431999 µg/m³", "CO 8.47532711 ppm"],
)
def test_example_of_the_technical_assistance_document(
    scale: Scale, concentration: float, expected: float
) -> None:
    assert one(scale, concentration) == expected


# EPA, Office of Air Quality Planning and Standards, slides "Computing the NowCast": twelve hours, oldest first.
def test_epa_example_of_the_nowcast() -> None:
    oldest_first = [50, 80, 75, 90, 82, 53, 64, 74, 21, 10, 16, 13]
    assert aqi.nowcast(window(*reversed(oldest_first)))[0] == pytest.approx(17.4, abs=0.05)


# 40 CFR Part 58 Appendix G, table 2 as of 6 May 2024 (89 FR 16202): both ends of each row of PM2.5, the pollutant
# that changed, and the concentrations given for an index of 500.
@pytest.mark.parametrize(
    ("concentration", "expected"),
    [
        (0.0, 0),
        *((9.0, 50), (9.1, 51)),
        *((35.4, 100), (35.5, 101)),
        *((55.4, 150), (55.5, 151)),
        *((125.4, 200), (125.5, 201)),
        *((225.4, 300), (225.5, 301)),
        (325.4, 500),
    ],
)
def test_breakpoints_of_pm25_since_may_2024(concentration: float, expected: float) -> None:
    assert one(PM25, concentration) == expected


@pytest.mark.parametrize(
    ("scale", "concentration"),
    [(O3_1H, 604), (PM25, 325.4), (PM10, 604), (CO, 50_400), (NO2, 2049)],
)
def test_the_concentrations_for_an_index_of_500(scale: Scale, concentration: float) -> None:
    assert one(scale, concentration) == 500


@every_scale
def test_each_row_runs_from_its_lowest_to_its_highest_index(scale: Scale) -> None:
    for low, high, index_low, index_high in table(scale):
        assert one(scale, low / scale.steps) == index_low
        assert one(scale, high / scale.steps) == index_high


@every_scale
def test_over_the_edge_of_a_row_the_index_rises_by_one(scale: Scale) -> None:
    for (_, high, _, index_high), _next in zip(table(scale), table(scale)[1:], strict=False):
        assert one(scale, (high + 1) / scale.steps) == index_high + 1


@every_scale
@given(data=st.data())
@lenient
def test_the_index_never_falls_as_the_concentration_rises(scale: Scale, data: st.DataObject) -> None:
    steps = st.floats(scale.start, 3 * scale.heads[-1])
    concentrations = np.sort(np.array(data.draw(st.lists(steps, min_size=2, max_size=50)))) / scale.steps
    indices = aqi.index(scale, concentrations)
    assert np.all(np.diff(indices[~np.isnan(indices)]) >= 0)


@every_scale
@given(step=st.integers(0, 5000), part=st.floats(0, 0.9999))
@lenient
def test_concentrations_are_truncated_to_the_step(scale: Scale, step: int, part: float) -> None:
    whole, more = one(scale, step / scale.steps), one(scale, (step + part) / scale.steps)
    assert more == whole or (np.isnan(more) and np.isnan(whole))


@every_scale
def test_missing_negative_and_too_low_values_have_no_index(scale: Scale) -> None:
    below = (scale.start - 1) / scale.steps
    assert np.isnan(aqi.index(scale, np.array([NAN, below, -1.0 / scale.steps]))).all()


@given(above=st.integers(1, 20_000))
@lenient
def test_above_500_the_hazardous_row_is_extrapolated(above: int) -> None:
    slope = (500 - 301) / (3254 - 2255)
    assert one(PM25, (3254 + above) / 10) == pytest.approx(500 + above * slope, abs=0.5)
    assert one(PM25, (3254 + above) / 10) >= 500


def test_sulphur_dioxide_is_limited_to_200_without_24_hours() -> None:
    assert aqi.index(SO2, np.array([304.0, 305.0, 5000.0])).tolist() == [200, 200, 200]


# Standards that 40 CFR states in both units, at 25 °C and 1 atm: 50.9, 50.8, 50.11 and 50.4.
@pytest.mark.parametrize(
    ("gas", "micrograms", "expected"),
    [("o3", 235.0, 120), ("co", 10_000.0, 9_000), ("no2", 100.0, 53), ("so2", 365.0, 140)],
)
def test_conversion_agrees_with_standards_in_both_units(gas: str, micrograms: float, expected: float) -> None:
    assert aqi.ppb(gas, np.array([micrograms]))[0] == pytest.approx(expected, rel=0.035)


def test_conversion_of_another_gas_is_an_error() -> None:
    with pytest.raises(KeyError):
        aqi.ppb("radon", np.array([1.0]))


hours = st.lists(st.floats(0, 5_000), min_size=12, max_size=12)


@given(hours)
@lenient
def test_a_nowcast_is_between_the_lowest_and_highest_hour(values: list[float]) -> None:
    found = aqi.nowcast(window(*values))[0]
    slack = 1e-9 * max(values)
    assert min(values) - slack <= found <= max(values) + slack


@given(st.floats(0, 5_000), st.integers(0, 11))
@lenient
def test_the_nowcast_of_constant_values_is_that_value(value: float, missing: int) -> None:
    values = [value] * 12
    values[missing] = NAN
    assert aqi.nowcast(window(*values))[0] == pytest.approx(value, rel=1e-12)


def test_rounding_errors_do_not_lower_the_index_at_a_breakpoint() -> None:
    # Twelve times 9.1 µg/m³ has a mean of 9.099999999999998: Moderate all the same.
    tenths = np.arange(0, 5_000) / 10
    found = aqi.index(PM25, aqi.nowcast(np.repeat(tenths[:, np.newaxis], 12, axis=1)))
    assert found.tolist() == aqi.index(PM25, tenths).tolist()
    assert found[91] == 51


@given(st.sets(st.integers(0, 11)))
@lenient
def test_a_nowcast_requires_two_of_the_three_latest_hours(missing: set[int]) -> None:
    values = [NAN if age in missing else 10.0 + age for age in range(12)]
    wanted = len({0, 1, 2} - missing) >= 2
    assert np.isfinite(aqi.nowcast(window(*values))[0]) == wanted


def test_a_missing_current_hour_is_replaced_by_the_two_before_it() -> None:
    # w = 1 - (40 - 30) / 40 = 3/4; (40 w + 30 w²) / (w + w²)
    found = aqi.nowcast(window(NAN, 40.0, 30.0))[0]
    assert found == pytest.approx((40 * 0.75 + 30 * 0.75**2) / (0.75 + 0.75**2))


def test_the_weight_factor_is_at_least_one_half() -> None:
    # w would be 1/100, so the previous hour would have almost no weight.
    assert aqi.nowcast(window(100.0, 1.0))[0] == pytest.approx((100 + 0.5) / 1.5)


def test_the_nowcast_of_zeros_is_zero() -> None:
    assert aqi.nowcast(window(*[0.0] * 12))[0] == 0.0


@given(st.sets(st.integers(0, 7)))
@lenient
def test_an_eight_hour_mean_requires_six_hours(missing: set[int]) -> None:
    values = [NAN if age in missing else float(age) for age in range(8)]
    present = [value for value in values if not np.isnan(value)]
    found = aqi.mean(window(*values, *[9_999.0] * 4))[0]
    if len(present) >= 6:
        assert found == pytest.approx(sum(present) / len(present))
    else:
        assert np.isnan(found)


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [
        (124.0, 10.0, 22),  # 24.25 ppb in 8 hours, 50 × 24 / 54; the hour has no index below 125 ppb
        (125.0, 10.0, 101),  # the hour's index is the higher one
        (190.0, 180.0, 280),  # 181.25 ppb in 8 hours, 201 + 99 × 75 / 94; the hour's index is 182
        (450.0, 190.0, 346),  # above 300 only the hour's index is defined
        (150.0, 300.0, 300),  # above an 8-hour mean of 200 ppb the 8-hour index holds
    ],
)
def test_ozone_is_the_higher_of_one_hour_and_eight(now: float, before: float, expected: float) -> None:
    assert aqi.ozone_index(window(now, *[before] * 7))[0] == expected


def test_ozone_without_eight_hours_uses_the_one_hour_index_if_defined() -> None:
    assert aqi.ozone_index(window(604.0))[0] == 500
    assert np.isnan(aqi.ozone_index(window(100.0))[0])
    assert np.isnan(aqi.ozone_index(window())[0])


def test_the_dominant_pollutant_is_the_first_with_the_highest_index() -> None:
    indices = {"a": np.array([1.0, 7.0, NAN, NAN]), "b": np.array([2.0, 7.0, 0.0, NAN])}
    top, names = aqi.highest(indices)
    assert top[:3].tolist() == [2.0, 7.0, 0.0]
    assert np.isnan(top[3])
    assert names.tolist() == ["b", "a", "b", None]


@pytest.mark.parametrize(
    ("first", "last", "name"),
    [
        (0, 50, "Good"),
        (51, 100, "Moderate"),
        (101, 150, "Unhealthy for Sensitive Groups"),
        (151, 200, "Unhealthy"),
        (201, 300, "Very Unhealthy"),
        (301, 5_000, "Hazardous"),
    ],
)
def test_categories_are_those_of_the_table(first: int, last: int, name: str) -> None:
    assert set(aqi.category(np.arange(first, last + 1, dtype=np.float64))) == {name}


def test_no_index_has_no_category() -> None:
    assert aqi.category(np.array([NAN])).tolist() == [None]
