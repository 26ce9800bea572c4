"""Compiled code of `Windows`, `SensorChecks` and `PreviousValues`: loops over rows, in order, each with a slot."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anomaly.kernels.compiled import compiled, inlined
from anomaly.kernels.prefetch import CACHED, ask_for_items, prefetch

EMPTY = np.iinfo(np.int64).min

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


# Rows between a prefetch and the use of the data, if the arrays exceed the cache.
_AHEAD = 4
# The number of devices whose state of a cache line each fits into the cache.
_DEVICES_IN_CACHE = CACHED // 64


@inlined
def prefetch_cells(
    array: NDArray[np.int64] | NDArray[np.float64], slot: int, cell: int, size: int, cells: int, fields: int
) -> None:
    """Prefetch the `size` cells of a ring that end with `cell`, including the wrap-around."""
    begin, first = slot * cells, cell + 1 - size
    ask_for_items(array, (begin + max(first, 0)) * fields, (begin + cell + 1) * fields)
    if first < 0:
        ask_for_items(array, (begin + cells + first) * fields, (begin + cells) * fields)


@compiled
def windows(slots: Ints, steps: Ints, given: Floats, stored_steps: Ints, values: Floats, out: Floats) -> None:
    """Add each row's values at its step and write its window: `given` (fields, rows), `out` (fields, rows, size).

    `stored_steps` (slots, cells) has the step of each cell, `values` (slots, cells, fields) the values of that step.
    """
    cells, (fields, _, size) = stored_steps.shape[1], out.shape
    beyond_cache = values.nbytes > CACHED
    for row in range(len(slots)):
        slot, step = slots[row], steps[row]
        if beyond_cache and row + _AHEAD < len(slots):
            later, last = slots[row + _AHEAD], steps[row + _AHEAD] % cells
            prefetch_cells(stored_steps, later, last, size, cells, 1)
            prefetch_cells(values, later, last, size, cells, fields)
        cell = step % cells
        if step >= stored_steps[slot, cell]:  # a late reading must not overwrite a newer one
            stored_steps[slot, cell] = step
            for field in range(fields):
                values[slot, cell, field] = given[field, row]
        for back in range(size):
            known = stored_steps[slot, cell] == step - back
            for field in range(fields):
                out[field, row, back] = values[slot, cell, field] if known else np.nan
            cell = cell - 1 if cell > 0 else cells - 1
        for field in range(fields):
            out[field, row, 0] = given[field, row]


@compiled
def rates(
    slots: Ints,
    times: Ints,
    values: Floats,
    most: Floats,
    per: Floats,
    spoils: Mask,
    at: Ints,
    last: Floats,
    first: int,
    tripped: Mask,
) -> None:
    """Check rates of change: `times` and `values` are (rates, rows).

    Results go to the columns of `tripped` (rows, checks) from `first` on. `at` and `last` (slots, rates) have the
    time and the value to compare with. A value that trips a check with `spoils` (checks, rates) is not compared with
    later ones.
    """
    rates, beyond_cache = len(most), len(at) > _DEVICES_IN_CACHE
    for row in range(len(slots)):
        if beyond_cache and row + _AHEAD < len(slots):
            prefetch(at, slots[row + _AHEAD] * rates)
            prefetch(last, slots[row + _AHEAD] * rates)
        slot = slots[row]
        for rate in range(rates):
            value, time, before = values[rate, row], times[rate, row], at[slot, rate]
            if before == EMPTY or time == EMPTY or time <= before or np.isnan(value):
                continue
            allowed = most[rate] * max(1.0, (time - before) / per[rate])
            tripped[row, first + rate] = abs(value - last[slot, rate]) > allowed
        for rate in range(rates):
            value, time, before = values[rate, row], times[rate, row], at[slot, rate]
            if time == EMPTY or (before != EMPTY and time <= before) or np.isnan(value):
                continue
            spoils_rate = False
            for check in range(len(spoils)):
                spoils_rate |= tripped[row, check] and spoils[check, rate]
            if not spoils_rate:
                at[slot, rate], last[slot, rate] = time, value


@compiled
def stuck(
    slots: Ints,
    values: Floats,
    exempt: Mask,
    limits: Ints,
    same: Floats,
    run: Ints,
    first: int,
    tripped: Mask,
) -> None:
    """Check for repeated values: `values` and `exempt` (values that never trip) are (checks, rows).

    Results go to the columns of `tripped` (rows, checks) from `first` on. `same` and `run` (slots, checks) have the
    last value and how many times in a row it came.
    """
    checks, beyond_cache = len(limits), len(same) > _DEVICES_IN_CACHE
    for row in range(len(slots)):
        if beyond_cache and row + _AHEAD < len(slots):
            prefetch(same, slots[row + _AHEAD] * checks)
            prefetch(run, slots[row + _AHEAD] * checks)
        slot = slots[row]
        for check in range(checks):
            value = values[check, row]
            if np.isnan(value):
                continue
            run[slot, check] = run[slot, check] + 1 if value == same[slot, check] else 1
            same[slot, check] = value
            tripped[row, first + check] = run[slot, check] >= limits[check] and not exempt[check, row]


@compiled
def previous_rows(slots: Ints, accepted: Mask, latest: Ints, found: Ints) -> None:
    """Find the last accepted row of the same device before each row, -1 for none; `latest` (slots) is all -1."""
    for row in range(len(slots)):
        found[row] = latest[slots[row]]
        if accepted[row]:
            latest[slots[row]] = row
    for row in range(len(slots)):
        latest[slots[row]] = -1
