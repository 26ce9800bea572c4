"""The compiled part of `NearestValue`: its state as one row of floats for each key, and what a row does to it.

A key's row: HEADER numbers (rows, cooldown left, pressure), then for each feature
  level (2): values averaged so far (at most `window`), moving average;
  hours (2 x 24): how often each hour of the day was seen (at most FULL), and its usual value;
  three channels, each STATS numbers (values held, values learnt, mean step, mean distance, last value,
  distance between the neighbours of the value dropped last) and then
  the values held, sorted: distinct values seen, thinned where they are closest.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.compiled import compiled

HEADER = 3
ROWS, COOLDOWN, PRESSURE = range(HEADER)
LEVEL, HOURS = 2, 24
STATS = 6
HELD, LEARNT, STEP, DISTANCE, LAST, CLOSEST = range(STATS)
CHANNELS = 3
VALUE, AVERAGE, HOUR = range(CHANNELS)
BEFORE = LEVEL + 2 * HOURS
# What is known of the strongest part of a row's score.
WHY = 5
FEATURE, CHANNEL, OBSERVED, NEAREST, USUAL = range(WHY)

# An hour of the day is compared once it was seen FULL times; its usual value moves by at least 1 / MEMORY_OF_HOUR.
FULL = 12.0
MEMORY_OF_HOUR = 10.0
# What lies beyond counts as missing: products of a range, a step and a root must fit into a double.
LARGEST = 1e100
# Scores are kept finite, whatever is divided by next to nothing.
HIGHEST = 1e9

Floats = NDArray[np.float64]


class Rules(NamedTuple):
    """The parameters of a detector, as its compiled part takes them."""

    threshold: float
    cooldown: float
    warm_up: float
    rows_per_alert: float
    step_up: float
    memory: float
    window: float
    capacity: int


def width(features: int, capacity: int) -> int:
    """How many numbers the state of one key takes."""
    return HEADER + features * (BEFORE + CHANNELS * (STATS + capacity + 1))


@compiled
def place_of(held: Floats, count: int, value: float) -> int:
    """How many of the sorted values held are below `value`."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if held[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def nearest(held: Floats, count: int, at: int, value: float) -> float:
    """The value held that is nearest to `value`, whose place among them is `at`; the lower of two."""
    if at == 0:
        return float(held[0])
    if at == count or value - held[at - 1] <= held[at] - value:
        return float(held[at - 1])
    return float(held[at])


@compiled
def thin(held: Floats, count: int) -> float:
    """Drop the value whose neighbours lie closest together, and tell how close; the lowest and the highest stay."""
    drop, closest = 1, np.inf
    for i in range(1, count - 1):
        gap = held[i + 1] - held[i - 1]
        if gap < closest:
            closest, drop = gap, i
    for i in range(drop, count - 1):
        held[i] = held[i + 1]
    return float(closest)


@compiled
def would_go(held: Floats, count: int, at: int, value: float, closest: float) -> bool:
    """Whether a new value would be the one to be dropped again: a quick way to know what `thin` would find.

    The neighbours of no value held lie closer than `closest`, but for the two beside the new one.
    """
    if at == 0 or at == count:
        return False
    gap = held[at] - held[at - 1]
    beside_left = at < 2 or gap < value - held[at - 2]
    beside_right = at + 1 == count or gap < held[at + 1] - value
    return bool(gap < closest and beside_left and beside_right)


@compiled
def hold(held: Floats, stats: Floats, at: int, value: float, capacity: int) -> None:
    """Take a new value into the sorted ones at its place."""
    count = int(stats[HELD])
    full = count == capacity
    if full and would_go(held, count, at, value, stats[CLOSEST]):
        return
    for i in range(count, at, -1):
        held[i] = held[i - 1]
    held[at] = value
    if full:
        stats[CLOSEST] = thin(held, count + 1)
    else:
        stats[HELD] = count + 1


@compiled
def unlike(stats: Floats, spread: float, distance: float, rules: Any) -> float:
    """distance / (spread^0.4 · mean step^0.4 · mean distance^0.2) · learnt^0.25.

    Free of scale and of offset, and slow to be surprised while little is known. What was constant for longer than
    the warm-up has no step to compare with: its first change is judged as if it had been among the values learnt.
    """
    learnt = min(stats[LEARNT], rules.memory)
    usual = (spread * stats[STEP] * np.sqrt(stats[DISTANCE])) ** 0.4
    if usual > 0.0:
        return float(min(distance / usual * np.sqrt(np.sqrt(learnt)), HIGHEST))
    return float(learnt**0.85) if distance > 0.0 and spread == 0.0 and learnt > rules.warm_up else 0.0


@compiled
def surprise(channel: Floats, value: float, rules: Any, why: Floats) -> float:
    """How unlike everything seen `value` is; then learns it. `why` becomes (observed, nearest, usual distance)."""
    stats, held = channel[:STATS], channel[STATS:]
    if stats[LEARNT] == 0.0:
        held[0] = value
        stats[HELD], stats[LEARNT], stats[LAST] = 1.0, 1.0, value
        why[0], why[1], why[2] = value, value, 0.0
        return 0.0
    count = int(stats[HELD])
    at = place_of(held, count, value)
    close = nearest(held, count, at, value)
    distance = abs(value - close)
    score = unlike(stats, held[count - 1] - held[0], distance, rules)
    why[0], why[1], why[2] = value, close, stats[DISTANCE]
    learnt = min(stats[LEARNT], rules.memory)
    stats[STEP] += (abs(value - stats[LAST]) - stats[STEP]) / learnt
    stats[DISTANCE] += (distance - stats[DISTANCE]) / learnt
    stats[LEARNT], stats[LAST] = stats[LEARNT] + 1.0, value
    if distance > 0.0:
        hold(held, stats, at, value, rules.capacity)
    return score


@compiled
def feature(block: Floats, value: float, hour: int, rules: Any, why: Floats, found: Floats) -> float:
    """One feature's score, the power mean of its channels: the value, its moving average, its hour of the day."""
    each = STATS + rules.capacity + 1
    block[0] = min(block[0] + 1.0, rules.window)
    block[1] += (value - block[1]) / block[0]
    roots, channels, strongest = 0.0, 0, -1.0
    for channel in range(CHANNELS):
        observed = block[1] if channel == AVERAGE else value
        if channel == HOUR:
            if hour < 0:
                continue
            times, usual = block[LEVEL + hour], block[LEVEL + HOURS + hour]
            block[LEVEL + hour] = min(times + 1.0, FULL)
            block[LEVEL + HOURS + hour] += (value - usual) / min(times + 1.0, MEMORY_OF_HOUR)
            if times < FULL:
                continue
            observed = value - usual
        begin = BEFORE + channel * each
        score = surprise(block[begin : begin + each], observed, rules, found)
        roots += np.sqrt(score)
        channels += 1
        if score > strongest:
            strongest = score
            why[CHANNEL], why[OBSERVED], why[NEAREST], why[USUAL] = channel, found[0], found[1], found[2]
    return float((roots / channels) ** 2)


@compiled
def controlled(header: Floats, raw: float, rules: Any) -> float:
    """The score after the key's own alert level, which each alert raises and time lowers.

    An alert multiplies what it takes to alert by exp(step_up), and `rows_per_alert` rows take that back, down to
    the threshold itself. So N rows bring at most N / rows_per_alert + ln(highest score / threshold) / step_up + 1
    alerts, whatever the data are. While it cools down a score stays below a tenth of the threshold; while it warms
    up it is 0, and the level is learnt.
    """
    header[ROWS] += 1.0
    header[PRESSURE] = max(0.0, header[PRESSURE] - rules.step_up / rules.rows_per_alert)
    score = min(raw * np.exp(-header[PRESSURE]), HIGHEST)
    if header[COOLDOWN] > 0.0:
        header[COOLDOWN] -= 1.0
        score *= 0.1 * rules.threshold / (score + rules.threshold)
    elif score >= rules.threshold:
        header[COOLDOWN] = rules.cooldown
        header[PRESSURE] += rules.step_up
    return float(score if header[ROWS] > rules.warm_up else 0.0)


@compiled
def one_row(row: Floats, x: Floats, hour: int, rules: Any, why: Floats, scratch: Floats) -> float:
    """Scores, then learns, one row of a key; 0 where every feature is missing.

    Features combine as (Σ √s)², over their number: so the threshold means about the same for one and for many.
    """
    block = (len(row) - HEADER) // len(x)
    found, of_channel = scratch[:WHY], scratch[WHY:]
    roots, strongest, present = 0.0, -1.0, 0
    for number in range(len(x)):
        if np.isnan(x[number]):
            continue
        begin = HEADER + number * block
        score = feature(row[begin : begin + block], x[number], hour, rules, found, of_channel)
        roots += np.sqrt(score)
        present += 1
        if score > strongest:
            strongest = score
            why[:] = found
            why[FEATURE] = number
    return controlled(row[:HEADER], min(roots**2 / present, HIGHEST), rules) if present else 0.0


@compiled
def all_rows(
    state: Floats,
    places: NDArray[np.intp],
    fresh: NDArray[np.bool_],
    X: Floats,
    hours: NDArray[np.int64],
    rules: Any,
    scores: Floats,
    why: Floats,
) -> None:
    """All rows in order; `places` are rows of `state`, cleared where `fresh`."""
    scratch = np.zeros(2 * WHY)
    for i in range(len(X)):
        row = state[places[i]]
        if fresh[i]:
            row[:] = 0.0
        scores[i] = one_row(row, X[i], hours[i], rules, why[i], scratch)
