"""The compiled part of `HalfSpaceTrees`: walks down trees that lie in arrays, node i above 2i + 1 and 2i + 2."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.kernels.compiled import compiled

# A key's header: the trees it has (-1: none yet), rows learnt in this window, whether a window is full, rows seen.
HEADER = 4
TREES, COUNTER, READY, ROWS = range(HEADER)
LEARNT, REFERENCE = 0, 1

Floats = NDArray[np.float64]
Masses = NDArray[np.uint16]


class Rules(NamedTuple):
    """The parameters of a detector, as its compiled part takes them."""

    height: int
    window: int
    warm_up: int
    scaled: bool


@compiled
def scaled(x: Floats, lows: Floats, highs: Floats, out: Floats) -> None:
    """River's MinMaxScaler: a value never seen is NaN (known, but nowhere), one of a constant feature is 0."""
    for i in range(len(x)):
        span = highs[i] - lows[i]
        out[i] = (x[i] - lows[i]) / span if span != 0.0 else 0.0


@compiled
def child(node: int, value: float, missing: bool, split: float, mass: Masses) -> int:
    """The next node down; a missing value goes where more went in this window."""
    left = 2 * node + 1
    if missing:
        return left + 1 if mass[left] < mass[left + 1] else left
    return left if value < split else left + 1


@compiled
def walk_score(feature: Any, split: Floats, mass: Masses, x: Floats, missing: Any, rules: Any) -> float:
    """Sum of mass · 2^depth down to the first node that few rows reached in the window before."""
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
def walk_learn(feature: Any, split: Floats, mass: Masses, x: Floats, missing: Any, rules: Any) -> None:
    """Count the row at every node of its way."""
    node = 0
    for _ in range(rules.height):
        mass[LEARNT, node] += 1
        on = feature[node]
        node = child(node, x[on], missing[on], split[node], mass[LEARNT])
    mass[LEARNT, node] += 1


@compiled
def score(features: Any, splits: Any, masses: Any, x: Floats, missing: Any, rules: Any) -> float:
    """River's score of a row: 1 - mass found / most that could be found."""
    found = 0.0
    for tree in range(len(features)):
        found += walk_score(features[tree], splits[tree], masses[tree], x, missing, rules)
    most = len(features) * rules.window * (2.0 ** (rules.height + 1) - 1.0)
    return float(1.0 - found / most)


@compiled
def learn(header: Any, features: Any, splits: Any, masses: Any, x: Floats, missing: Any, rules: Any) -> None:
    """Count a row in all trees; a full window becomes what the next rows are compared with."""
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
    places: NDArray[np.intp],
    fresh: NDArray[np.bool_],
    built: NDArray[np.int64],
    X: Floats,
    rules: Any,
    scores: Floats,
) -> None:
    """All rows in order; `built` has the trees that a row's key begins with when it has none."""
    out = np.zeros(X.shape[1])
    for i in range(len(X)):
        at, x, missing = places[i], X[i], np.isnan(X[i])
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
