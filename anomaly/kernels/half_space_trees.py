"""The compiled loops of `HalfSpaceTrees`: trees in arrays, in which node i has the children 2i + 1 and 2i + 2."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.kernels.compiled import compiled

# The header of a key: index of its trees (-1 for none yet), rows learnt in this window, whether a window was
# completed (0 or 1), rows seen.
HEADER = 4
TREES, COUNTER, READY, ROWS = range(HEADER)
LEARNT, REFERENCE = 0, 1

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Masses = NDArray[np.uint16]
Flags = NDArray[np.bool_]


class Rules(NamedTuple):
    """The parameters of a detector, as passed to the compiled loops."""

    height: int
    window: int
    warm_up: int
    scaled: bool


@compiled
def scaled(x: Floats, lows: Floats, highs: Floats, out: Floats) -> None:
    """Scale as river's MinMaxScaler does: NaN for a feature never seen, 0 for a constant feature."""
    for i in range(len(x)):
        span = highs[i] - lows[i]
        out[i] = (x[i] - lows[i]) / span if span != 0.0 else 0.0


@compiled
def child(node: int, value: float, missing: bool, split: float, mass: Masses) -> int:
    """Return the next node down; a missing value follows the majority of this window."""
    left = 2 * node + 1
    if missing:
        return left + 1 if mass[left] < mass[left + 1] else left
    return left if value < split else left + 1


@compiled
def walk_score(
    feature: Integers, split: Floats, mass: Masses, x: Floats, missing: Flags, rules: Rules
) -> float:
    """Sum mass · 2^depth down to the first node that few rows of the previous window reached."""
    node, weight, score = 0, 1.0, 0.0
    for _ in range(rules.height):
        reached = float(mass[REFERENCE, node])
        score += reached * weight
        if reached < 0.1 * rules.window:
            return score
        on = feature[node]
        node = child(node, x[on], missing[on], split[node], mass[LEARNT])
        weight *= 2.0
    return score + float(mass[REFERENCE, node]) * weight


@compiled
def walk_learn(
    feature: Integers, split: Floats, mass: Masses, x: Floats, missing: Flags, rules: Rules
) -> None:
    """Count the row at every node of its path."""
    node = 0
    for _ in range(rules.height):
        mass[LEARNT, node] += 1
        on = feature[node]
        node = child(node, x[on], missing[on], split[node], mass[LEARNT])
    mass[LEARNT, node] += 1


@compiled
def score(
    features: Integers, splits: Floats, masses: Masses, x: Floats, missing: Flags, rules: Rules
) -> float:
    """Score a row as river does: 1 - mass / maximum mass."""
    found = 0.0
    for tree in range(len(features)):
        found += walk_score(features[tree], splits[tree], masses[tree], x, missing, rules)
    most = len(features) * rules.window * (2.0 ** (rules.height + 1) - 1.0)
    return float(1.0 - found / most)


@compiled
def learn(
    header: Integers,
    features: Integers,
    splits: Floats,
    masses: Masses,
    x: Floats,
    missing: Flags,
    rules: Rules,
) -> None:
    """Count a row in all trees; a complete window becomes the reference for the next rows."""
    for tree in range(len(features)):
        walk_learn(features[tree], splits[tree], masses[tree], x, missing, rules)
    header[COUNTER] += 1
    if header[COUNTER] == rules.window:
        masses[:, REFERENCE] = masses[:, LEARNT]
        masses[:, LEARNT] = 0
        header[COUNTER], header[READY] = 0, 1


@compiled
def all_rows(
    header: NDArray[np.int64],
    ranges: Floats,
    masses: NDArray[np.uint16],
    features: NDArray[np.int64],
    splits: Floats,
    slots: NDArray[np.intp],
    fresh: NDArray[np.bool_],
    built: NDArray[np.int64],
    X: Floats,
    rules: Rules,
    scores: Floats,
) -> None:
    """Score and learn all rows in order; `built` are the trees with which keys without trees start."""
    out = np.zeros(X.shape[1])
    for i in range(len(X)):
        at, x, missing = slots[i], X[i], np.isnan(X[i])
        own, lows, highs = header[at], ranges[at, 0], ranges[at, 1]
        if fresh[i]:
            own[:], masses[at], lows[:], highs[:] = 0, 0, np.inf, -np.inf
            own[TREES] = -1
        if missing.all():
            continue
        if own[READY] == 1 and own[ROWS] >= rules.warm_up:
            if rules.scaled:
                scaled(x, lows, highs, out)
            else:
                out[:] = x
            trees = own[TREES]
            found = score(features[trees], splits[trees], masses[at], out, missing, rules)
            scores[i] = found if found > 0.0 else 0.0
        if own[TREES] < 0:
            own[TREES] = built[i]
        out[:] = x
        if rules.scaled:
            for j in range(len(x)):
                if not missing[j]:
                    lows[j], highs[j] = min(lows[j], x[j]), max(highs[j], x[j])
            scaled(x, lows, highs, out)
        trees = own[TREES]
        learn(own, features[trees], splits[trees], masses[at], out, missing, rules)
        own[ROWS] += 1
