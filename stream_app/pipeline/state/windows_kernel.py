"""The compiled parts of `Windows`, `Checks` and `Previous`: loops over rows in order, each row's device by number."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.kernels.compiled import compiled, inlined
from anomaly.kernels.prefetch import CACHED, ask_for_items, prefetch

STALE = np.iinfo(np.int64).min

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


# What is known of many devices is asked for so many rows before it is needed.
_AHEAD = 4
# Of what takes a line or less of each device, in several arrays, so many devices' are in the cache.
_FEW = CACHED // 64


@inlined
def ask_for_slots(array: Any, device: int, slot: int, size: int, slots: int, fields: int) -> None:
    """Ask for so many slots of a device that end with one; before the first comes the last."""
    begin, first = device * slots, slot + 1 - size
    ask_for_items(array, (begin + max(first, 0)) * fields, (begin + slot + 1) * fields)
    if first < 0:
        ask_for_items(array, (begin + slots + first) * fields, (begin + slots) * fields)


@compiled
def windows(devices: Ints, steps: Ints, given: Floats, stamps: Ints, values: Floats, out: Floats) -> None:
    """Note each row's values at its step, then give its window: `given` (fields, rows), `out` (fields, rows, size).

    `stamps` (device, slot) are the steps that slots hold, `values` (device, slot, field) what was seen then.
    """
    slots, (fields, _, size) = stamps.shape[1], out.shape
    many = values.nbytes > CACHED
    for row in range(len(devices)):
        device, step = devices[row], steps[row]
        if many and row + _AHEAD < len(devices):
            later, last = devices[row + _AHEAD], steps[row + _AHEAD] % slots
            ask_for_slots(stamps, later, last, size, slots, 1)
            ask_for_slots(values, later, last, size, slots, fields)
        slot = step % slots
        if step >= stamps[device, slot]:  # never let an ancient reading push out a newer one
            stamps[device, slot] = step
            for field in range(fields):
                values[device, slot, field] = given[field, row]
        for back in range(size):
            known = stamps[device, slot] == step - back
            for field in range(fields):
                out[field, row, back] = values[device, slot, field] if known else np.nan
            slot = slot - 1 if slot > 0 else slots - 1
        for field in range(fields):
            out[field, row, 0] = given[field, row]


@compiled
def rates(
    devices: Ints,
    moments: Ints,
    values: Floats,
    most: Floats,
    per: Floats,
    spoils: Mask,
    at: Ints,
    last: Floats,
    first: int,
    tripped: Mask,
) -> None:
    """Rates of change: their columns of `tripped` (rows, checks) begin at `first`; `moments`, `values` (rates, rows).

    `at` and `last` (device, rate) are the time and the value to compare with; where a check of `spoils` (checks,
    rates) trips, the value is none to compare later ones with.
    """
    rates, many = len(most), len(at) > _FEW
    for row in range(len(devices)):
        if many and row + _AHEAD < len(devices):
            prefetch(at, devices[row + _AHEAD] * rates)
            prefetch(last, devices[row + _AHEAD] * rates)
        device = devices[row]
        for rate in range(rates):
            value, moment, before = values[rate, row], moments[rate, row], at[device, rate]
            if before == STALE or moment == STALE or moment <= before or np.isnan(value):
                continue
            allowed = most[rate] * max(1.0, (moment - before) / per[rate])
            tripped[row, first + rate] = abs(value - last[device, rate]) > allowed
        for rate in range(rates):
            value, moment, before = values[rate, row], moments[rate, row], at[device, rate]
            if moment == STALE or (before != STALE and moment <= before) or np.isnan(value):
                continue
            spoilt = False
            for check in range(len(spoils)):
                spoilt |= tripped[row, check] and spoils[check, rate]
            if not spoilt:
                at[device, rate], last[device, rate] = moment, value


@compiled
def stuck(
    devices: Ints,
    values: Floats,
    usual: Mask,
    times: Ints,
    same: Floats,
    run: Ints,
    first: int,
    tripped: Mask,
) -> None:
    """Values that stay the same; `values` and `usual` (never tripping) are (checks, rows)."""
    checks, many = len(times), len(same) > _FEW
    for row in range(len(devices)):
        if many and row + _AHEAD < len(devices):
            prefetch(same, devices[row + _AHEAD] * checks)
            prefetch(run, devices[row + _AHEAD] * checks)
        device = devices[row]
        for check in range(checks):
            value = values[check, row]
            if np.isnan(value):
                continue
            run[device, check] = run[device, check] + 1 if value == same[device, check] else 1
            same[device, check] = value
            tripped[row, first + check] = run[device, check] >= times[check] and not usual[check, row]


@compiled
def before(devices: Ints, accepted: Mask, latest: Ints, found: Ints) -> None:
    """For each row the accepted row of its device before it, -1 where there is none; `latest` is -1 throughout."""
    for row in range(len(devices)):
        found[row] = latest[devices[row]]
        if accepted[row]:
            latest[devices[row]] = row
    for row in range(len(devices)):
        latest[devices[row]] = -1
