"""The compiled part of `NearestValue`: what a row does to the state of its key (`nearest_state`).

Only +, -, ·, / and √ are used, which every machine rounds alike: a score has the same bits wherever it is computed
again. Loops over lanes have no branches where they can, so that they become vector instructions; indices are unsigned
where nothing else tells that they are not negative.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.kernels.compiled import compiled, inlined
from anomaly.kernels.nearest_held import Whole, hold, nearest, place_of, would_go
from anomaly.kernels.prefetch import ask
from anomaly.keyed_state import nearest_state as field
from anomaly.keyed_state.nearest_state import Floats, Singles

# What is known of each lane while its row is judged; AWAY is NaN where there was nothing to compare.
LANE = 10
CLOSE, AWAY, SPREAD, STEPPED, PACE, USUALLY, AGE, NEXT_PACE, NEXT_USUALLY, NEXT_AGE = range(LANE)
# Lanes are reckoned with in vectors of VECTOR, in blocks: their numbers lie at distances known beforehand.
VECTOR, BLOCK = 8, 64
# So many values held are what a detector has when nobody says otherwise: loops over them are unrolled.
USUAL = 64
# What is needed AHEAD rows later is asked for when all that is held takes more room than is NEAR the processor.
AHEAD, NEAR = 2, 1 << 20

# An hour of the day is compared once it was seen FULL times; its usual value moves by at least 1 / MEMORY_OF_HOUR.
FULL = 12
MEMORY_OF_HOUR = 10
# What lies beyond counts as missing: the fourth power of a distance must fit into a double.
LARGEST = 1e30
# Scores are kept finite, whatever is divided by next to nothing.
HIGHEST = 1e9


@inlined
def observe(
    key: Floats,
    moving: Singles,
    usual: Singles,
    times: Any,
    p: Whole,
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


@inlined
def compare(
    stats: Singles,
    held: Singles,
    p: Whole,
    b: int,
    now: Singles,
    lanes: Any,
    news: Any,
    new: Whole,
    memory: float,
    size: int,
) -> Whole:
    """What is known of each lane: the nearest value held, how far it is, the range, the means before this row.

    `news` are lanes and places of what is to be taken in, `new` how many these are. A first value is taken as it
    is.
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
def unlike(lanes: Any, b: int, width: int, warm_up: float, roots: Floats) -> None:
    """√ of each lane's score, away / (spread · mean step)^0.375 / (mean away)^0.25 · age^0.25; 0 of none.

    Free of scale and of offset, and slow to be surprised while little is known. What was constant for longer than
    the warm-up has no step to compare with: its first change is judged by how long it was.
    """
    for j in range(width):
        away, spread, age = lanes[b, AWAY, j], lanes[b, SPREAD, j], lanes[b, AGE, j]
        common, square = spread * lanes[b, PACE, j], away * away
        usual = common * np.sqrt(common) * lanes[b, USUALLY, j]
        strange = np.sqrt(np.sqrt(np.sqrt(square * square * age / usual)))
        first = np.sqrt(age) if (away > 0.0) & (spread == 0.0) & (age > warm_up) else 0.0
        root = strange if usual > 0.0 else first
        roots[b * BLOCK + j] = root if away >= 0.0 else 0.0


@inlined
def learn(stats: Singles, p: Whole, b: int, width: int, now: Singles, lanes: Any) -> None:
    """The means of each lane after the row."""
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
def keep(stats: Singles, held: Singles, p: Whole, now: Singles, news: Any, new: Whole, size: int) -> None:
    """Take what was not seen before into the values held."""
    for n in range(new):
        c, at, count = news[n, 0], np.int64(news[n, 1]), int(stats[p, field.HELD, news[n, 0]])
        closest = hold(held, p, c, count, at, now[c], stats[p, field.CLOSEST, c], size)
        stats[p, field.CLOSEST, c], stats[p, field.HELD, c] = closest, min(count + 1, size)


@inlined
def combined(
    key: Floats, p: Whole, X: Floats, row: int, now: Singles, lanes: Any, roots: Floats, why: Floats
) -> float:
    """Σ over the features of the mean of √score over their channels; says what stood out."""
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
def controlled(key: Floats, p: Whole, raw: float, rules: Any) -> float:
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


@inlined
def begin(state: Any, place: Whole) -> None:
    """Clear what is known of a key."""
    state.key[place] = np.nan
    state.key[place, field.ROWS], state.key[place, field.COOLDOWN], state.key[place, field.LEVEL] = (
        0.0,
        0.0,
        1.0,
    )
    state.stats[place], state.held[place] = 0.0, np.inf
    state.moving[place], state.usual[place], state.times[place] = 0.0, 0.0, 0


@inlined
def ask_for(state: Any, p: Whole, hour: int) -> None:
    """Ask for what is known of a key."""
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
    state: Any,
    places: NDArray[np.intp],
    fresh: NDArray[np.bool_],
    X: Floats,
    hours: NDArray[np.int64],
    rules: Any,
    scores: Floats,
    why: Floats,
    size: int,
) -> None:
    """`all_rows`, where so many values are held of a lane."""
    key, stats, held = state.key, state.stats, state.held
    moving, usual, times = state.moving, state.usual, state.times
    count = stats.shape[2]
    blocks, far = -(-count // BLOCK), held.nbytes > NEAR
    now, lanes = np.full(blocks * BLOCK, np.nan, np.float32), np.full((blocks, LANE, BLOCK), np.nan)
    roots, news = np.zeros(blocks * BLOCK), np.zeros((count + 1, 2), np.uintp)
    for i in range(len(X)):
        p = np.uintp(places[i])
        if fresh[i]:
            begin(state, p)
        if far & (i + AHEAD < len(X)):
            ask_for(state, places[i + AHEAD], hours[i + AHEAD])
        present = observe(key, moving, usual, times, p, X, i, hours[i], rules.window, now)
        if present == 0:
            continue
        new = np.uintp(0)
        for b in range(blocks):
            width = -(-min(BLOCK, count - b * BLOCK) // VECTOR) * VECTOR
            new = compare(stats, held, p, b, now, lanes, news, new, rules.memory, size)
            unlike(lanes, b, width, rules.warm_up, roots)
            learn(stats, p, b, width, now, lanes)
        if far & (i + AHEAD < len(X)):
            ask(held, 2 * places[i + AHEAD] + 1, count * size // 2)
        keep(stats, held, p, now, news, np.int64(new), size)
        total = combined(key, p, X, i, now, lanes, roots, why)
        scores[i] = controlled(key, p, min(total * total / present, HIGHEST), rules)


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
    rows_of(state, places, fresh, X, hours, rules, scores, why, state.held.shape[2])


@compiled
def all_usual_rows(
    state: Any,
    places: NDArray[np.intp],
    fresh: NDArray[np.bool_],
    X: Floats,
    hours: NDArray[np.int64],
    rules: Any,
    scores: Floats,
    why: Floats,
) -> None:
    """`all_rows` of a detector with room for USUAL values in a lane: the same, and faster."""
    rows_of(state, places, fresh, X, hours, rules, scores, why, USUAL)
