"""The compiled loops of `NearestValue`: score rows and update the state of their keys (`nearest_state`).

Only +, -, ·, / and √ are used, which all processors round alike, so scores are identical bit for bit on any machine.
Loops over lanes avoid branches, so that they become vector instructions. Indices are unsigned where the compiler
cannot infer that they are not negative.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anomaly.kernels.compiled import compiled, inlined
from anomaly.kernels.prefetch import ask
from anomaly.nearest_value import state as field
from anomaly.nearest_value.held_values import Whole, hold, nearest, place_of, would_go
from anomaly.nearest_value.state import Floats, Rules, Singles, State

Bytes = NDArray[np.uint8]
Indices = NDArray[np.uintp]

# Intermediate values of each lane of a row; AWAY is NaN where there was nothing to compare.
LANE = 10
CLOSE, AWAY, SPREAD, STEPPED, PACE, USUALLY, AGE, NEXT_PACE, NEXT_USUALLY, NEXT_AGE = range(LANE)
# Lanes are computed in vectors of VECTOR within blocks, so that memory offsets are constant.
VECTOR, BLOCK = 8, 64
# The default capacity, for which loops over held values are unrolled.
USUAL = 64
# The state needed AHEAD rows later is prefetched if all held values exceed NEAR bytes, the size of a near cache.
AHEAD, NEAR = 2, 1 << 20
# An hour of the day is compared after FULL observations; its usual value moves by at least 1 / MEMORY_OF_HOUR.
FULL, MEMORY_OF_HOUR = 12, 10
# Larger values count as missing: the fourth power of a distance must fit into a double.
LARGEST = 1e30
# Scores are limited, so that they stay finite after a division by a tiny number.
HIGHEST = 1e9


@inlined
def observe(
    key: Floats,
    moving: Singles,
    usual: Singles,
    times: Bytes,
    p: Whole,
    X: Floats,
    row: int,
    hour: int,
    window: float,
    now: Singles,
) -> int:
    """Fill `now` with the values of all lanes (NaN if missing), update the averages, and count present features."""
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


@inlined
def compare(
    stats: Singles,
    held: Singles,
    p: Whole,
    b: int,
    now: Singles,
    lanes: Floats,
    news: Indices,
    new: Whole,
    memory: float,
    size: int,
) -> Whole:
    """Fill `lanes` with the nearest held value, its distance, the range, and the means before this row.

    `news` are lanes and indices of values to insert, `new` is their number. A first value is inserted at once.
    """
    first = b * BLOCK
    for j in range(min(BLOCK, stats.shape[2] - first)):
        c = np.uintp(first + j)
        value, count = now[c], int(stats[p, field.HELD, c])
        lanes[b, AWAY, j] = np.nan
        if np.isnan(value):
            continue
        if count == 0:
            held[p, c, 0] = value
            stats[p, field.HELD, c], stats[p, field.LEARNT, c], stats[p, field.LAST, c] = 1.0, 1.0, value
            lanes[b, CLOSE, j], lanes[b, USUALLY, j] = value, 0.0
            continue
        at = place_of(held, p, c, value, size)
        close = nearest(held, p, c, at, value, size)
        goes = would_go(held, p, c, at, value, stats[p, field.CLOSEST, c], size)
        news[new, 0], news[new, 1] = c, at
        new += np.uintp((close != value) & (not goes))
        lanes[b, CLOSE, j], lanes[b, AWAY, j] = close, abs(value - close)
        lanes[b, SPREAD, j] = held[p, c, max(count - 1, 0)] - held[p, c, 0]
        lanes[b, STEPPED, j] = abs(value - stats[p, field.LAST, c])
        lanes[b, PACE, j], lanes[b, USUALLY, j] = stats[p, field.STEP, c], stats[p, field.DISTANCE, c]
        lanes[b, AGE, j] = min(float(stats[p, field.LEARNT, c]), memory)
    return new


@inlined
def lane_scores(lanes: Floats, b: int, width: int, warm_up: float, roots: Floats) -> None:
    """Fill `roots` with √ of the score away / (spread · mean step)^0.375 / (mean away)^0.25 · age^0.25 of each lane.

    The score is invariant to scale and offset, and lower while the key is young. The first change of a value that was
    constant for longer than the warm-up, and so has no step, is scored by how long it was constant.
    """
    for j in range(width):
        away, spread, age = lanes[b, AWAY, j], lanes[b, SPREAD, j], lanes[b, AGE, j]
        common, square = spread * lanes[b, PACE, j], away * away
        usual = common * np.sqrt(common) * lanes[b, USUALLY, j]
        relative = np.sqrt(np.sqrt(np.sqrt(square * square * age / usual)))
        first = np.sqrt(age) if (away > 0.0) & (spread == 0.0) & (age > warm_up) else 0.0
        root = relative if usual > 0.0 else first
        roots[b * BLOCK + j] = root if away >= 0.0 else 0.0


@inlined
def learn(stats: Singles, p: Whole, b: int, width: int, now: Singles, lanes: Floats) -> None:
    """Update the means of each lane."""
    for j in range(width):
        pace, usually, age = lanes[b, PACE, j], lanes[b, USUALLY, j], lanes[b, AGE, j]
        part = 1.0 / age
        lanes[b, NEXT_PACE, j] = pace + (lanes[b, STEPPED, j] - pace) * part
        lanes[b, NEXT_USUALLY, j] = usually + (lanes[b, AWAY, j] - usually) * part
        lanes[b, NEXT_AGE, j] = age + 1.0
    first = b * BLOCK
    for j in range(min(BLOCK, stats.shape[2] - first)):
        c = np.uintp(first + j)
        if lanes[b, AWAY, j] >= 0.0:
            stats[p, field.STEP, c], stats[p, field.LAST, c] = lanes[b, NEXT_PACE, j], now[c]
            stats[p, field.DISTANCE, c] = lanes[b, NEXT_USUALLY, j]
            stats[p, field.LEARNT, c] = lanes[b, NEXT_AGE, j]


@inlined
def keep(stats: Singles, held: Singles, p: Whole, now: Singles, news: Indices, new: Whole, size: int) -> None:
    """Insert the new values into the held ones."""
    for n in range(new):
        c, at, count = news[n, 0], np.int64(news[n, 1]), int(stats[p, field.HELD, news[n, 0]])
        closest = hold(held, p, c, count, at, now[c], stats[p, field.CLOSEST, c], size)
        stats[p, field.CLOSEST, c], stats[p, field.HELD, c] = closest, min(count + 1, size)


@inlined
def combined(
    key: Floats, p: Whole, X: Floats, row: int, now: Singles, lanes: Floats, roots: Floats, why: Floats
) -> float:
    """Sum over the features the mean of √score over their channels; fills `why` with the largest contribution."""
    number, total, strongest, feature = X.shape[1], 0.0, -1.0, 0
    for f in range(number):
        if not np.isnan(now[f]):
            channels = 2.0 if np.isnan(now[2 * number + f]) else 3.0
            root = (roots[f] + roots[number + f] + roots[2 * number + f]) / channels
            total += root
            feature = f if root > strongest else feature
            strongest = max(strongest, root)
    first, highest = feature, 0.0
    for c in range(feature, field.CHANNELS * number, number):
        if roots[c] > highest:
            highest, first = roots[c], c
    offset = key[p, field.ANCHOR + feature] if first < field.HOUR * number else 0.0
    why[row, field.FEATURE], why[row, field.CHANNEL] = feature, first // number
    why[row, field.OBSERVED] = X[row, feature] if first == feature else now[first] + offset
    why[row, field.NEAREST] = lanes[first // BLOCK, CLOSE, first % BLOCK] + offset
    why[row, field.USUAL] = lanes[first // BLOCK, USUALLY, first % BLOCK]
    return total


@inlined
def controlled(key: Floats, p: Whole, raw: float, rules: Rules) -> float:
    """Divide the score by the alert level of the key, which each alert raises and each row lowers.

    An alert multiplies the level by `rise` and each row by `fall`, down to 1. Therefore N rows of any data cause at
    most N · ln(1 / fall) / ln(rise) + ln(highest score / threshold) / ln(rise) + 1 alerts. During the cooldown scores
    stay below a tenth of the threshold; during the warm-up they are 0, and the level is calibrated.
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


@inlined
def begin(state: State, slot: Whole) -> None:
    """Clear the state of a key."""
    state.key[slot] = np.nan
    state.key[slot, field.ROWS], state.key[slot, field.COOLDOWN] = 0.0, 0.0
    state.key[slot, field.LEVEL] = 1.0
    state.stats[slot], state.held[slot] = 0.0, np.inf
    state.moving[slot], state.usual[slot], state.times[slot] = 0.0, 0.0, 0


@inlined
def ask_for(state: State, p: Whole, hour: int) -> None:
    """Prefetch the state of a key."""
    number = state.usual.shape[2]
    ask(state.key, p, state.key.shape[1])
    ask(state.held, 2 * p, state.held.shape[1] * state.held.shape[2] // 2)
    ask(state.stats, p, field.STATS * state.stats.shape[2])
    ask(state.moving, p, 2 * number)
    if hour >= 0:
        ask(state.usual, p * field.HOURS + hour, number)
        ask(state.times, p * field.HOURS + hour, number)


@inlined
def rows_of(
    state: State,
    slots: NDArray[np.intp],
    fresh: NDArray[np.bool_],
    X: Floats,
    hours: NDArray[np.int64],
    rules: Rules,
    scores: Floats,
    why: Floats,
    size: int,
) -> None:
    """Score and learn all rows; `size` is the capacity of a lane."""
    key, stats, held = state.key, state.stats, state.held
    moving, usual, times = state.moving, state.usual, state.times
    count = stats.shape[2]
    blocks, far = -(-count // BLOCK), held.nbytes > NEAR
    now, lanes = np.full(blocks * BLOCK, np.nan, np.float32), np.full((blocks, LANE, BLOCK), np.nan)
    roots, news = np.zeros(blocks * BLOCK), np.zeros((count + 1, 2), np.uintp)
    for i in range(len(X)):
        p = np.uintp(slots[i])
        if fresh[i]:
            begin(state, p)
        if far & (i + AHEAD < len(X)):
            ask_for(state, slots[i + AHEAD], hours[i + AHEAD])
        present = observe(key, moving, usual, times, p, X, i, hours[i], rules.window, now)
        if present == 0:
            continue
        new = np.uintp(0)
        for b in range(blocks):
            width = -(-min(BLOCK, count - b * BLOCK) // VECTOR) * VECTOR
            new = compare(stats, held, p, b, now, lanes, news, new, rules.memory, size)
            lane_scores(lanes, b, width, rules.warm_up, roots)
            learn(stats, p, b, width, now, lanes)
        if far & (i + AHEAD < len(X)):
            ask(held, 2 * slots[i + AHEAD] + 1, count * size // 2)
        keep(stats, held, p, now, news, np.int64(new), size)
        total = combined(key, p, X, i, now, lanes, roots, why)
        scores[i] = controlled(key, p, min(total * total / present, HIGHEST), rules)


@compiled
def all_rows(
    state: State,
    slots: NDArray[np.intp],
    fresh: NDArray[np.bool_],
    X: Floats,
    hours: NDArray[np.int64],
    rules: Rules,
    scores: Floats,
    why: Floats,
) -> None:
    """Score and learn all rows in order; `slots` are the slots of their keys, cleared where `fresh`.

    Features are combined as (Σ √s)² divided by their number, so that a threshold suits any number of features.
    """
    rows_of(state, slots, fresh, X, hours, rules, scores, why, state.held.shape[2])


@compiled
def all_usual_rows(
    state: State,
    slots: NDArray[np.intp],
    fresh: NDArray[np.bool_],
    X: Floats,
    hours: NDArray[np.int64],
    rules: Rules,
    scores: Floats,
    why: Floats,
) -> None:
    """Score and learn all rows as `all_rows` does, faster, for the default capacity USUAL."""
    rows_of(state, slots, fresh, X, hours, rules, scores, why, USUAL)
