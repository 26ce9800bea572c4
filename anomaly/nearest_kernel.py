"""The compiled part of `NearestValue`: what a row does to the state of its key (`nearest_state`).

Only +, -, ·, / and √ are used, which every machine rounds alike: a score has the same bits wherever it is computed
again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly import nearest_state as field
from anomaly.compiled import compiled, compiled_without_nan
from anomaly.nearest_state import Floats, Singles

# What is known of each lane while its row is judged; AWAY is NaN where there was nothing to compare.
LANE = 7
CLOSE, AWAY, SPREAD, PACE, USUALLY, AGE, ROOT = range(LANE)
# Lanes are reckoned with in vectors: room for them is a multiple of this.
VECTOR = 8

# An hour of the day is compared once it was seen FULL times; its usual value moves by at least 1 / MEMORY_OF_HOUR.
FULL = 12
MEMORY_OF_HOUR = 10
# What lies beyond counts as missing: the fourth power of a distance must fit into a double.
LARGEST = 1e30
# Scores are kept finite, whatever is divided by next to nothing.
HIGHEST = 1e9


@compiled
def place_of(held: Singles, p: int, c: int, value: np.float32) -> int:
    """How many of the values held are below `value`. All are compared, which takes less than a search."""
    below = np.int32(0)
    for i in range(held.shape[2]):
        below += np.int32(held[p, c, i] < value)
    return int(below)


@compiled
def nearest(held: Singles, p: int, c: int, at: int, value: np.float32) -> np.float32:
    """The value held that is nearest to `value`, whose place among them is `at`; the lower of two."""
    lower, upper = held[p, c, max(at - 1, 0)], held[p, c, min(at, held.shape[2] - 1)]
    close: np.float32 = lower if abs(value - lower) <= abs(upper - value) else upper
    return close


@compiled
def would_go(held: Singles, p: int, c: int, at: int, value: np.float32, closest: np.float32) -> bool:
    """Whether a new value would be the first to be dropped: the commonest case by far, and known at once.

    The neighbours of no value held lie closer than `closest`, but for the two beside the new one. No branches:
    which way it goes is anyone's guess.
    """
    last = held.shape[2] - 1
    gap = held[p, c, min(at, last)] - held[p, c, max(at - 1, 0)]
    beside_left = (at < 2) | (gap < value - held[p, c, max(at - 2, 0)])
    beside_right = (at >= last) | (gap < held[p, c, min(at + 1, last)] - value)
    return bool((at > 0) & (at <= last) & (gap < closest) & beside_left & beside_right)


@compiled_without_nan
def closest_gap(held: Singles, p: int, c: int) -> np.float32:
    """The least distance between two values that have one between them."""
    closest = np.float32(np.inf)
    for i in range(1, held.shape[2] - 1):
        closest = min(closest, held[p, c, i + 1] - held[p, c, i - 1])
    return closest


@compiled
def first_gap(held: Singles, p: int, c: int, gap: np.float32) -> int:
    """Where the first value is whose neighbours lie so far apart; beyond all where there is none. No branches."""
    beyond = np.int32(held.shape[2])
    first = beyond
    for i in range(1, held.shape[2] - 1):
        first = min(first, np.int32(i) if held[p, c, i + 1] - held[p, c, i - 1] == gap else beyond)
    return int(first)


@compiled
def exchange(held: Singles, p: int, c: int, at: int, value: np.float32) -> np.float32:
    """Take a value into full ones, drop the one whose neighbours lie closest together, and tell how close.

    The lowest and the highest stay; of several the lowest goes. Gaps are taken between the old ones: those beside
    the new value are only narrower with it, and are looked at by themselves.
    """
    last, far = held.shape[2] - 1, np.float32(np.inf)
    left = value - held[p, c, at - 2] if at >= 2 else far
    own = held[p, c, at] - held[p, c, at - 1] if 1 <= at <= last else far
    right = held[p, c, at + 1] - value if at < last else far
    closest = min(min(closest_gap(held, p, c), left), min(own, right))
    drop = first_gap(held, p, c, closest)
    drop += drop >= at  # counted with the new one among them
    if right == closest:
        drop = min(drop, at + 1)
    if own == closest:
        drop = min(drop, at)
    if left == closest:
        drop = min(drop, at - 1)
    for i in range(drop, at - 1):
        held[p, c, i] = held[p, c, i + 1]
    for i in range(drop - 1, at, -1):
        held[p, c, i] = held[p, c, i - 1]
    if drop != at:
        held[p, c, at - 1 if drop < at else at] = value
    return closest


@compiled
def hold(
    held: Singles, p: int, c: int, count: int, at: int, value: np.float32, closest: np.float32
) -> np.float32:
    """Take a new value into the sorted ones at its place; returns what `closest` is after that."""
    if count == held.shape[2]:
        return exchange(held, p, c, at, value)
    for i in range(count, at, -1):
        held[p, c, i] = held[p, c, i - 1]
    held[p, c, at] = value
    return closest


@compiled
def observe(
    key: Floats,
    moving: Singles,
    usual: Singles,
    times: Any,
    p: int,
    X: Floats,
    row: int,
    hour: int,
    window: float,
    now: Singles,
) -> int:
    """What each lane has to judge, NaN where nothing; returns how many features are there. Learns the averages."""
    number, present = X.shape[1], 0
    now[:] = np.nan
    for f in range(number):
        x = X[row, f]
        if not abs(x) <= LARGEST:
            continue
        present += 1
        if np.isnan(key[p, field.ANCHOR + f]):
            key[p, field.ANCHOR + f] = x
        value = np.float32(x - key[p, field.ANCHOR + f])
        moving[p, field.AVERAGED, f] = min(moving[p, field.AVERAGED, f] + 1.0, window)
        moving[p, field.MEAN, f] += (value - moving[p, field.MEAN, f]) / moving[p, field.AVERAGED, f]
        now[f], now[number + f] = value, moving[p, field.MEAN, f]
        if hour >= 0:
            seen, before = times[p, hour, f], usual[p, hour, f]
            times[p, hour, f] = min(seen + 1, FULL)
            usual[p, hour, f] += (value - before) / min(seen + 1, MEMORY_OF_HOUR)
            if seen >= FULL:
                now[2 * number + f] = value - before
    return present


@compiled
def compare(
    stats: Singles, held: Singles, p: int, now: Singles, lanes: Floats, places: Any, memory: float
) -> None:
    """What is known of each lane: the nearest value held, how far it is, the range, the means before this row.

    `places` is where a value is to be taken in, -1 where it is not. A first value is taken as it is.
    """
    for c in range(len(now)):
        value, count = now[c], int(stats[p, field.HELD, c])
        lanes[AWAY, c], places[c] = np.nan, -1
        if np.isnan(value):
            continue
        if count == 0:
            held[p, c, 0] = value
            stats[p, field.HELD, c], stats[p, field.LEARNT, c], stats[p, field.LAST, c] = 1.0, 1.0, value
            lanes[CLOSE, c], lanes[USUALLY, c] = value, 0.0
            continue
        at = place_of(held, p, c, value)
        close = nearest(held, p, c, at, value)
        if close != value and not would_go(held, p, c, at, value, stats[p, field.CLOSEST, c]):
            places[c] = at
        lanes[CLOSE, c], lanes[AWAY, c] = close, abs(value - close)
        lanes[SPREAD, c] = held[p, c, count - 1] - held[p, c, 0]
        lanes[PACE, c], lanes[USUALLY, c] = stats[p, field.STEP, c], stats[p, field.DISTANCE, c]
        lanes[AGE, c] = min(float(stats[p, field.LEARNT, c]), memory)


@compiled
def unlike(
    away: Floats, spread: Floats, pace: Floats, usually: Floats, age: Floats, warm_up: float, root: Floats
) -> None:
    """√ of each lane's score, away / (spread · mean step)^0.375 / (mean away)^0.25 · age^0.25.

    Free of scale and of offset, and slow to be surprised while little is known. What was constant for longer than
    the warm-up has no step to compare with: its first change is judged by how long it was.
    """
    for c in range(len(away)):
        common, square = spread[c] * pace[c], away[c] * away[c]
        usual = common * np.sqrt(common) * usually[c]
        strange = np.sqrt(np.sqrt(np.sqrt(square * square * age[c] / usual)))
        first = np.sqrt(age[c]) if (away[c] > 0.0) & (spread[c] == 0.0) & (age[c] > warm_up) else 0.0
        root[c] = strange if usual > 0.0 else first


@compiled
def learn(
    stats: Singles, p: int, now: Singles, away: Floats, pace: Floats, usually: Floats, age: Floats
) -> None:
    """The means of each lane after the row."""
    for c in range(len(now)):
        known, part = away[c] == away[c], 1.0 / age[c]
        step = abs(now[c] - stats[p, field.LAST, c])
        stats[p, field.STEP, c] = pace[c] + (step - pace[c]) * part if known else stats[p, field.STEP, c]
        stats[p, field.DISTANCE, c] = (
            usually[c] + (away[c] - usually[c]) * part if known else stats[p, field.DISTANCE, c]
        )
        stats[p, field.LEARNT, c] = age[c] + 1.0 if known else stats[p, field.LEARNT, c]
        stats[p, field.LAST, c] = now[c] if known else stats[p, field.LAST, c]


@compiled
def keep(stats: Singles, held: Singles, p: int, now: Singles, places: Any) -> None:
    """Take what was not seen before into the values held."""
    for c in range(len(now)):
        if places[c] >= 0:
            count = int(stats[p, field.HELD, c])
            stats[p, field.CLOSEST, c] = hold(
                held, p, c, count, places[c], now[c], stats[p, field.CLOSEST, c]
            )
            stats[p, field.HELD, c] = min(count + 1, held.shape[2])


@compiled
def combined(key: Floats, p: int, X: Floats, row: int, now: Singles, lanes: Floats, why: Floats) -> float:
    """Σ over the features of the mean of √score over their channels; says what stood out."""
    number = len(now) // field.CHANNELS
    total, strongest = 0.0, -1.0
    for f in range(number):
        if np.isnan(now[f]):
            continue
        roots, channels, first, highest = 0.0, 0, f, 0.0
        for c in range(f, len(now), number):
            if now[c] == now[c]:
                root = lanes[ROOT, c] if lanes[AWAY, c] >= 0.0 else 0.0
                roots += root
                channels += 1
                if root > highest:
                    highest, first = root, c
        root = roots / channels
        total += root
        if root > strongest:
            strongest = root
            offset = key[p, field.ANCHOR + f] if first < field.HOUR * number else 0.0
            why[row, field.FEATURE], why[row, field.CHANNEL] = f, first // number
            why[row, field.OBSERVED] = X[row, f] if first == f else now[first] + offset
            why[row, field.NEAREST] = lanes[CLOSE, first] + offset
            why[row, field.USUAL] = lanes[USUALLY, first]
    return total


@compiled
def controlled(key: Floats, p: int, raw: float, rules: Any) -> float:
    """The score after the key's own alert level, which each alert raises and time lowers.

    An alert multiplies what it takes to alert by `rise`, and every row by `fall`, down to the threshold itself. So
    N rows bring at most N · ln(1 / fall) / ln(rise) + ln(highest score / threshold) / ln(rise) + 1 alerts, whatever
    the data are. While it cools down a score stays below a tenth of the threshold; while it warms up it is 0, and
    the level is learnt.
    """
    key[p, field.ROWS] += 1.0
    key[p, field.LEVEL] = max(1.0, key[p, field.LEVEL] * rules.fall)
    score = min(raw / key[p, field.LEVEL], HIGHEST)
    if key[p, field.COOLDOWN] > 0.0:
        key[p, field.COOLDOWN] -= 1.0
        score *= 0.1 * rules.threshold / (score + rules.threshold)
    elif score >= rules.threshold:
        key[p, field.COOLDOWN] = rules.cooldown
        key[p, field.LEVEL] *= rules.rise
    return float(score if key[p, field.ROWS] > rules.warm_up else 0.0)


@compiled
def begin(state: Any, place: int) -> None:
    """Clear what is known of a key."""
    state.key[place] = np.nan
    state.key[place, field.ROWS], state.key[place, field.COOLDOWN], state.key[place, field.LEVEL] = (
        0.0,
        0.0,
        1.0,
    )
    state.stats[place], state.held[place] = 0.0, np.inf
    state.moving[place], state.usual[place], state.times[place] = 0.0, 0.0, 0


@compiled
def all_rows(
    state: Any,
    places: NDArray[np.intp],
    fresh: NDArray[np.bool_],
    X: Floats,
    hours: NDArray[np.int64],
    rules: Any,
    scores: Floats,
    why: Floats,
) -> None:
    """All rows in order; `places` are rows of the state's arrays, cleared where `fresh`.

    Features combine as (Σ √s)², over their number: so the threshold means about the same for one and for many.
    """
    key, stats, held = state.key, state.stats, state.held
    moving, usual, times = state.moving, state.usual, state.times
    count = stats.shape[2]
    now, lanes = np.zeros(count, np.float32), np.full((LANE, -(-count // VECTOR) * VECTOR), np.nan)
    away, spread, pace, usually = lanes[AWAY], lanes[SPREAD], lanes[PACE], lanes[USUALLY]
    age, root = lanes[AGE], lanes[ROOT]
    at = np.zeros(count, np.intp)
    for i in range(len(X)):
        p = places[i]
        if fresh[i]:
            begin(state, p)
        present = observe(key, moving, usual, times, p, X, i, hours[i], rules.window, now)
        if present == 0:
            continue
        compare(stats, held, p, now, lanes, at, rules.memory)
        unlike(away, spread, pace, usually, age, rules.warm_up, root)
        learn(stats, p, now, away, pace, usually, age)
        keep(stats, held, p, now, at)
        total = combined(key, p, X, i, now, lanes, why)
        scores[i] = controlled(key, p, min(total * total / present, HIGHEST), rules)
