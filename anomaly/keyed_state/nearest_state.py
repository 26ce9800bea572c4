"""What `NearestValue` knows of its devices: arrays with a row for each key.

A lane is one channel of one feature; lanes of a channel lie side by side (lane = channel · features + feature).
Of each key:
  key    ROWS, COOLDOWN, LEVEL, then for each feature its ANCHOR, the first value ever seen
  stats  for each lane STATS numbers: values held and learnt, mean step, mean distance, last value, and the distance
         between the neighbours of the value dropped last; STATS x lanes
  held   for each lane the distinct values seen, sorted, thinned where they are closest, then +inf; lanes x capacity
  moving for each feature the values averaged so far (at most `window`) and their moving average
  usual  the usual value at each hour of the day; HOURS x features
  times  how often that hour was seen; HOURS x features

All values are kept relative to the feature's anchor, as float32: so a large offset costs no precision, and a device
takes half the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.keyed_state.table import Arrays, Columns

# These numbers are compiled into nearest_kernel.py, whose stored code is renewed when that file is.
ROWS, COOLDOWN, LEVEL, ANCHOR = range(4)
HOURS = 24
STATS = 6
HELD, LEARNT, STEP, DISTANCE, LAST, CLOSEST = range(STATS)
CHANNELS = 3
VALUE, AVERAGE, HOUR = range(CHANNELS)
AVERAGED, MEAN = range(2)
# What is known of the strongest part of a row's score.
WHY = 5
FEATURE, CHANNEL, OBSERVED, NEAREST, USUAL = range(WHY)

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]


class Rules(NamedTuple):
    """The parameters of a detector, as its compiled part takes them."""

    threshold: float
    cooldown: float
    warm_up: float
    rise: float
    fall: float
    memory: float
    window: float


class State(NamedTuple):
    """The arrays of all keys, by place."""

    key: Floats
    stats: Singles
    held: Singles
    moving: Singles
    usual: Singles
    times: NDArray[np.uint8]


def layout(features: int, capacity: int) -> Columns:
    """Shape and type of each array for one key."""
    lanes = CHANNELS * features
    return {
        "key": ((ANCHOR + features,), np.float64),
        "stats": ((STATS, lanes), np.float32),
        "held": ((lanes, capacity), np.float32),
        "moving": ((2, features), np.float32),
        "usual": ((HOURS, features), np.float32),
        "times": ((HOURS, features), np.uint8),
    }


def unknown(keys: int, features: int, capacity: int) -> dict[str, NDArray[Any]]:
    """The states of keys of which nothing was seen."""
    shapes = layout(features, capacity)
    made: dict[str, NDArray[Any]] = {
        name: np.zeros((keys, *shape), kind) for name, (shape, kind) in shapes.items()
    }
    made["key"][:, ANCHOR:] = np.nan
    made["held"][:] = np.inf
    return made


def of_features(arrays: Arrays, names: Sequence[str], wanted: Sequence[str]) -> Arrays:
    """States of the features `names` as states of those `wanted`; one that they lack begins as never seen."""
    if tuple(names) == tuple(wanted):
        return arrays
    to = [number for number, name in enumerate(wanted) if name in names]
    of = [list(names).index(wanted[number]) for number in to]
    made = unknown(len(arrays["key"]), len(wanted), arrays["held"].shape[2])
    made["key"][:, :ANCHOR] = arrays["key"][:, :ANCHOR]
    for name, array in made.items():
        _by_feature(name, array)[..., to] = _by_feature(name, arrays[name])[..., of]
    return made


def _by_feature(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """A view of one of the arrays whose last axis is the features."""
    if name == "key":
        return array[:, ANCHOR:]
    if name == "stats":
        return array.reshape(len(array), STATS, CHANNELS, array.shape[2] // CHANNELS)
    if name == "held":
        keys, lanes, capacity = array.shape
        return np.moveaxis(array.reshape(keys, CHANNELS, lanes // CHANNELS, capacity), 2, -1)
    return array
