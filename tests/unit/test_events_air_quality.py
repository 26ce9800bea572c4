"""The air-quality event: its rules and columns, and results that do not depend on other rows."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.events.air_quality import aqi
from stream_app.events.air_quality.event import CLOCK_SKEW, COMPASS, EVENT, RANGES, calculate, verify, wind
from stream_app.model.record import Batch

assert EVENT.window is not None
WINDOW = EVENT.window
NOW = np.datetime64("2024-06-01T12:00:00.000", "ms")
MILLISECOND = np.timedelta64(1, "ms")
POLLUTANTS = ("pm25", "pm10", "so2", "no2", "co", "o3")
INDICES = {f"aqi_{name}" for name in POLLUTANTS}
COLUMNS = INDICES | {"aqi", "dominant", "category", "nowcast_pm25", "nowcast_pm10", "wind_east", "wind_north"}
lenient = settings(deadline=None)


def batch(rows: int = 1, **columns: Any) -> Batch:
    """Return readings that arrived when they were taken; columns that are not given are missing."""
    values: dict[str, Any] = {name: np.full(rows, np.nan) for name in RANGES}
    values["time"] = values["arrived"] = np.full(rows, NOW)
    values["wind_direction"] = np.full(rows, None, dtype=object)
    values |= {f"window.{name}": np.full((rows, 12), np.nan) for name in WINDOW.fields}
    return Batch("air_quality", values | columns, np.arange(rows))


def steady(name: str, value: float) -> dict[str, Any]:
    """Return the columns of a field with the same value in all hours of its window."""
    columns = {name: np.full(1, value)}
    if name in WINDOW.fields:
        columns[f"window.{name}"] = np.full((1, 12), value)
    return columns


def random_batch(seed: int, rows: int) -> Batch:
    """Return random readings with some missing values."""
    rng = np.random.default_rng(seed)

    def with_gaps(shape: tuple[int, ...], top: float) -> np.ndarray:
        values = rng.uniform(0, top, shape) * 10.0 ** rng.integers(-2, 1, shape)
        return np.where(rng.random(shape) < 0.15, np.nan, values.round(int(rng.integers(1, 8))))

    windows = {f"window.{name}": with_gaps((rows, 12), RANGES[name].high / 5) for name in WINDOW.fields}
    gases = {name: with_gaps((rows,), RANGES[name].high / 5) for name in ("so2", "no2")}
    points = np.array([*COMPASS, None], dtype=object)
    directions = points[rng.integers(0, len(points), rows)]
    return batch(rows, **windows, **gases, wind_speed=with_gaps((rows,), 30.0), wind_direction=directions)


def same(left: Any, right: Any) -> bool:
    """Compare bit by bit, including the signs of zeros and the bits of NaN."""
    if left.dtype == object:
        return bool(left.tolist() == right.tolist())
    return bool(left.dtype == right.dtype and left.tobytes() == right.tobytes())


def assert_same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert left.keys() == right.keys()
    assert [name for name in left if not same(left[name], right[name])] == []


# Stored results must not depend on how KCL batches records.


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 70), data=st.data())
@lenient
def test_a_result_does_not_depend_on_other_rows(seed: int, rows: int, data: st.DataObject) -> None:
    whole = random_batch(seed, rows)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    part = calculate(whole.take(mask))
    assert_same(part, {name: column[mask] for name, column in calculate(whole).items()})


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 8, 13, 64, 333])
def test_any_split_gives_identical_bytes(size: int) -> None:
    whole = random_batch(7, 1_000)
    parts = [calculate(whole.take(slice(start, start + size))) for start in range(0, 1_000, size)]
    assert_same({name: np.concatenate([p[name] for p in parts]) for name in parts[0]}, calculate(whole))


def test_results_do_not_depend_on_the_memory_layout_of_a_window() -> None:
    whole = random_batch(11, 257)
    turned = {f"window.{name}": np.asfortranarray(whole[f"window.{name}"]) for name in WINDOW.fields}
    assert_same(calculate(whole.with_columns(turned)), calculate(whole))


def test_the_window_holds_the_twelve_hours_of_a_nowcast() -> None:
    assert WINDOW.size == 12
    assert WINDOW.step == timedelta(hours=1)


def test_no_rows_give_no_results() -> None:
    columns = calculate(batch(0))
    assert columns.keys() == COLUMNS
    assert all(column.shape == (0,) for column in columns.values())


# The index.


def test_columns_are_floats_and_text() -> None:
    columns = calculate(random_batch(3, 50))
    assert columns.keys() == COLUMNS
    texts = {"dominant", "category"}
    assert {name for name, column in columns.items() if column.dtype == np.float64} == COLUMNS - texts
    assert all(isinstance(value, str | None) for name in texts for value in columns[name])


# EPA 454/B-18-007 (September 2018), page 15: 8-hour ozone 0.07853333 ppm, PM2.5 35.92431999 µg/m³ and CO
# 8.47532711 ppm have the indices 126, 102 and 90, and the AQI is 126 with ozone responsible.
def test_example_of_the_technical_assistance_document() -> None:
    ozone, monoxide = 78.53333 / aqi.ppb("o3", np.ones(1))[0], 8475.32711 / aqi.ppb("co", np.ones(1))[0]
    columns = steady("pm25", 35.92431999) | steady("o3", ozone) | steady("co", monoxide)
    found = calculate(batch(**columns))
    assert [found[f"aqi_{name}"][0] for name in ("o3", "pm25", "co")] == [126, 102, 90]
    assert found["aqi"][0] == 126
    assert found["dominant"][0] == "o3"
    assert found["category"][0] == "Unhealthy for Sensitive Groups"


def test_each_index_comes_from_its_own_field() -> None:
    high = {"pm25": 300.0, "pm10": 500.0, "so2": 700.0, "no2": 3_000.0, "co": 40_000.0, "o3": 1_000.0}
    for name, value in high.items():
        found = calculate(batch(**steady(name, value)))
        assert found["dominant"].tolist() == [name]
        assert {index for index in INDICES if not np.isnan(found[index][0])} == {f"aqi_{name}"}
        assert found["aqi"][0] == found[f"aqi_{name}"][0] > 150


def test_a_reading_without_pollutants_has_no_index() -> None:
    found = calculate(batch())
    assert all(np.isnan(found[name][0]) for name in (*INDICES, "aqi", "nowcast_pm25", "nowcast_pm10"))
    assert found["dominant"][0] is None
    assert found["category"][0] is None


@given(seed=st.integers(0, 2**32 - 1))
@lenient
def test_the_aqi_is_the_index_of_the_dominant_pollutant(seed: int) -> None:
    found = calculate(random_batch(seed, 20))
    for row in range(20):
        indices = {name: found[f"aqi_{name}"][row] for name in POLLUTANTS}
        known = {name: value for name, value in indices.items() if not math.isnan(value)}
        if known:
            assert found["aqi"][row] == max(known.values()) == known[found["dominant"][row]]
        else:
            assert found["dominant"][row] is None


# Wind.


def test_wind_components_point_away_from_the_wind_direction() -> None:
    speed = np.full(4, 5.0)
    east, north = wind(speed, np.array(["N", "E", "S", "W"], dtype=object))
    assert east.tolist() == [0.0, -5.0, 0.0, 5.0]
    assert north.tolist() == [-5.0, 0.0, 5.0, 0.0]


@given(speed=st.floats(1e-3, 115), number=st.integers(0, 15))
@lenient
def test_components_keep_the_speed_and_the_bearing(speed: float, number: int) -> None:
    east, north = wind(np.array([speed]), np.array([COMPASS[number]], dtype=object))
    assert math.hypot(east[0], north[0]) == pytest.approx(speed)
    bearing = math.degrees(math.atan2(-east[0], -north[0])) % 360
    assert math.isclose(math.cos(math.radians(bearing - 22.5 * number)), 1.0)


def test_calm_air_has_no_direction_and_missing_wind_no_components() -> None:
    directions = np.array(["NW", None, None, "NW"], dtype=object)
    east, north = wind(np.array([0.0, 0.0, 3.0, np.nan]), directions)
    for component in (east, north):
        assert component[:2].tobytes() == np.zeros(2).tobytes()
        assert np.isnan(component[2:]).all()


@pytest.mark.parametrize("point", ["X", "n", "", "north", "cv"])
def test_an_unknown_compass_point_raises(point: str) -> None:
    with pytest.raises(KeyError, match=repr(point)):
        calculate(batch(wind_speed=np.ones(1), wind_direction=np.array([point], dtype=object)))


# Rules.


def broken(rows: Batch) -> list[set[str]]:
    masks = verify(rows)
    assert all(mask.dtype == np.bool_ and mask.shape == (len(rows),) for mask in masks.values())
    return [{rule for rule, mask in masks.items() if not mask[row]} for row in range(len(rows))]


@pytest.mark.parametrize("name", RANGES)
def test_ranges_include_their_bounds(name: str) -> None:
    low, high, _ = RANGES[name]
    outside = [np.nextafter(low, -np.inf), np.nextafter(high, np.inf), -np.inf, np.inf]
    values = np.array([low, high, *outside])
    found = broken(batch(6, **{name: values}))
    assert found[:2] == [set(), set()]
    assert all(len(rules) == 1 and next(iter(rules)).startswith(f"{name} is from") for rules in found[2:])


@given(seed=st.integers(0, 2**32 - 1))
@lenient
def test_plausible_and_missing_values_pass_every_rule(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = {name: rng.uniform(r.low, r.high, 30) for name, r in RANGES.items()}
    gaps = {name: np.where(rng.random(30) < 0.3, np.nan, column) for name, column in values.items()}
    assert broken(batch(30, **gaps)) == [set()] * 30


@pytest.mark.parametrize("name", ["pm25", "pm10", "co", "no2", "o3"])
def test_the_upper_bound_of_a_pollutant_exceeds_an_index_of_500(name: str) -> None:
    assert calculate(batch(**steady(name, RANGES[name].high)))["aqi"][0] > 500


@given(ahead=st.integers(-(10**12), 10**9))
@lenient
def test_time_may_precede_arrival_by_any_amount_and_follow_it_by_the_skew(ahead: int) -> None:
    late = broken(batch(time=np.array([NOW + ahead * MILLISECOND])))[0]
    assert bool(late) == (ahead * MILLISECOND > CLOCK_SKEW)


def test_the_clock_skew_limit_is_inclusive() -> None:
    edge = NOW + np.timedelta64(5 * 60, "s")
    times = np.array([edge, edge + MILLISECOND])
    assert broken(batch(2, time=times)) == [set(), {"time is at most 5 minutes after arrival"}]


@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(0, 20))
@lenient
def test_rules_do_not_depend_on_other_rows(seed: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    rows = batch(20, **{name: rng.uniform(r.low - 1, r.high * 1.2, 20) for name, r in RANGES.items()})
    parts = broken(rows.take(slice(0, cut))) + broken(rows.take(slice(cut, 20)))
    assert parts == broken(rows)
