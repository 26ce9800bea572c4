"""The state of `NearestValue`: arrays with one row per key.

A lane is one channel of one feature; the lanes of a channel are adjacent (lane = channel · features + feature). The
state of a key consists of:

  key     ROWS, COOLDOWN, LEVEL, then the ANCHOR of each feature, which is the first value seen
  stats   STATS x lanes: number of values held and learnt, mean step, mean distance, last value, and the distance
          between the neighbours of the value dropped last
  held    lanes x capacity: the distinct values seen, sorted, thinned where they are closest, padded with +inf
  moving  for each feature the number of values averaged so far (at most `window`) and the moving average
  usual   HOURS x features: the usual value at each hour of the day
  times   HOURS x features: how often that hour was seen

Values are stored as float32 relative to the anchor of their feature: a large offset costs no precision, and the state
takes half the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.detector import AnyArray
from anomaly.keyed_state.table import Arrays, Columns

# These constants are compiled into kernels/nearest_value.py. Numba renews its cache only when that file changes.
ROWS, COOLDOWN, LEVEL, ANCHOR = range(4)
HOURS = 24
STATS = 6
HELD, LEARNT, STEP, DISTANCE, LAST, CLOSEST = range(STATS)
CHANNELS = 3
VALUE, AVERAGE, HOUR = range(CHANNELS)
AVERAGED, MEAN = range(2)
# The columns that describe the largest contribution to a score.
WHY = 5
FEATURE, CHANNEL, OBSERVED, NEAREST, USUAL = range(WHY)

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]


class Rules(NamedTuple):
    """The parameters of a detector, as passed to the compiled loops."""

    threshold: float
    cooldown: float
    warm_up: float
    rise: float
    fall: float
    memory: float
    window: float


class State(NamedTuple):
    """The arrays of all keys, indexed by slot."""

    key: Floats
    stats: Singles
    held: Singles
    moving: Singles
    usual: Singles
    times: NDArray[np.uint8]


def layout(features: int, capacity: int) -> Columns:
    """Return shape and type of each array for one key."""
    lanes = CHANNELS * features
    return {
        "key": ((ANCHOR + features,), np.float64),
        "stats": ((STATS, lanes), np.float32),
        "held": ((lanes, capacity), np.float32),
        "moving": ((2, features), np.float32),
        "usual": ((HOURS, features), np.float32),
        "times": ((HOURS, features), np.uint8),
    }


def unknown(keys: int, features: int, capacity: int) -> dict[str, AnyArray]:
    """Return the initial states of keys."""
    shapes = layout(features, capacity)
    states: dict[str, AnyArray] = {
        name: np.zeros((keys, *shape), kind) for name, (shape, kind) in shapes.items()
    }
    states["key"][:, ANCHOR:] = np.nan
    states["held"][:] = np.inf
    return states


def of_features(arrays: Arrays, names: Sequence[str], wanted: Sequence[str]) -> Arrays:
    """Rearrange states of the features `names` for the features `wanted`; new features start without history."""
    if tuple(names) == tuple(wanted):
        return arrays
    to = [number for number, name in enumerate(wanted) if name in names]
    of = [list(names).index(wanted[number]) for number in to]
    states = unknown(len(arrays["key"]), len(wanted), arrays["held"].shape[2])
    states["key"][:, :ANCHOR] = arrays["key"][:, :ANCHOR]
    for name, array in states.items():
        _by_feature(name, array)[..., to] = _by_feature(name, arrays[name])[..., of]
    return states


def _by_feature(name: str, array: AnyArray) -> AnyArray:
    """Return a view of an array whose last axis is the features."""
    if name == "key":
        return array[:, ANCHOR:]
    if name == "stats":
        return array.reshape(len(array), STATS, CHANNELS, array.shape[2] // CHANNELS)
    if name == "held":
        keys, lanes, capacity = array.shape
        return np.moveaxis(array.reshape(keys, CHANNELS, lanes // CHANNELS, capacity), 2, -1)
    return array
