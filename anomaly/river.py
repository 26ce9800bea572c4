"""Detectors on river: any model of river as it is, and its standard absolute deviation for many devices at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray
from river import base

from anomaly.container import pickled, seal, unpickled, unseal
from anomaly.detector import Detector, DetectorFactory, FloatMatrix, FloatVector, Keep, StateError, Times
from anomaly.one import OneDevice
from anomaly.rows import usable

# river adds this to a standard deviation, so that a constant series has a score.
EPSILON = 1e-10
# From this many devices on it pays to compute a row of each of them at once.
WIDE = 24


class Model(Protocol):
    """What is used of a river model."""

    def score_one(self, x: dict[str, float]) -> float:
        """The higher, the more anomalous."""
        ...

    def learn_one(self, x: dict[str, float]) -> None:
        """Takes the row into account from now on."""
        ...


def with_river(factory: Callable[[], Model], threshold: float, warm_up: int = 0) -> DetectorFactory:
    """What an Event's `detector` takes: `with_river(lambda: HalfSpaceTrees(seed=1), threshold=0.95)`."""

    def detector(features: Sequence[str]) -> Detector:
        return RiverDetector(factory, features, threshold, warm_up)

    detector.__name__ = type(factory()).__name__
    return detector


class RiverDetector:
    """A river model for each key: `score_one`, then `learn_one`, in order.

    A missing feature is left out of the model's row; a row without any is neither scored nor learnt. The first
    `warm_up` rows of a key score 0, as does what the model scores below 0 or not finite. `factory` makes a new
    model each time, with a fixed seed where it draws at random. Supervised models (those that take a `y`) are
    refused with TypeError, and so is a model that cannot be pickled.

    Not every model obeys `anomaly.laws`: LocalOutlierFactor scores a constant series 1, OneClassSVM more than 0.
    """

    def __init__(
        self, factory: Callable[[], Model], features: Sequence[str], threshold: float, warm_up: int = 0
    ) -> None:
        model = factory()
        if getattr(model, "_supervised", False):
            raise TypeError(f"{type(model).__name__} learns a target; a detector scores a row by itself")
        pickled(model)
        self.threshold = threshold
        self._factory, self._features, self._warm_up = factory, tuple(features), warm_up
        self._kind = f"river:{type(model).__module__}.{type(model).__qualname__}"
        self._package = type(model).__module__.partition(".")[0]
        self._models: dict[str, Model] = {}
        self._seen: dict[str, int] = {}

    def process_many(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector:
        """Score then learn n rows in order. `X` is (n, features), NaN where missing; returns (n,) scores."""
        rows = usable(X, len(self._features)).tolist()
        return np.fromiter(map(self._process_one, keys, rows), dtype=np.float64, count=len(rows))

    def _process_one(self, key: str, row: list[float]) -> float:
        present = {name: value for name, value in zip(self._features, row, strict=True) if value == value}
        if not present:
            return 0.0
        model = self._models.get(key)
        if model is None:
            model = self._models[key] = self._factory()
        seen = self._seen.get(key, 0)
        score = float(model.score_one(present)) if seen >= self._warm_up else 0.0
        model.learn_one(present)
        self._seen[key] = seen + 1
        return score if 0.0 < score < math.inf else 0.0

    def snapshot(self) -> bytes:
        """The state of every key, each in a pickle of its own."""
        models = {key: (self._seen[key], pickled(model)) for key, model in self._models.items()}
        return seal(self._kind, msgspec.msgpack.encode((_river_version(), models)))

    def restore(self, state: bytes, keep: Keep = lambda _key: True) -> None:
        """Add the keys of a snapshot for which `keep(key)` holds; a key that is held already is replaced.

        A snapshot of another kind of model is passed over. Raises StateError when it is damaged or when this
        version of river cannot read it.
        """
        body = unseal(self._kind, state)
        if body is None:
            return
        version, stored = msgspec.msgpack.decode(body, type=tuple[str, dict[str, tuple[int, bytes]]])
        kept = {key: entry for key, entry in stored.items() if keep(key)}
        self._models |= {key: self._read(model, version) for key, (_, model) in kept.items()}
        self._seen |= {key: seen for key, (seen, _) in kept.items()}

    def _read(self, model: bytes, version: str) -> Model:
        try:
            read: Model = unpickled(model, ("river", self._package))
        except Exception as error:  # whatever the classes in it raise
            raise StateError(
                f"a {self._kind} stored by river {version} cannot be read by {_river_version()}: {error}; "
                "go back to that version, or begin anew under another application name"
            ) from error
        return read


class StandardDeviation(OneDevice, base.AnomalyDetector):
    """How many standard deviations a value lies from its device's mean so far; a row scores its largest.

    For each key and feature river's `StandardAbsoluteDeviation`: mean and sample variance by Welford's method.
    A feature scores 0 in the first `warm_up` (at least 2) values of a key. The default threshold is past what
    heavy tails bring every day: of 25,920 hourly readings of six pollutants it flags 0.4 %.
    """

    def __init__(
        self, features: Sequence[str] | None = None, threshold: float = 6.0, warm_up: int = 24
    ) -> None:
        if warm_up < 2:
            raise ValueError(f"warm_up = {warm_up}: a deviation needs at least 2 values")
        self.features = tuple(features) if features else None  # river takes an empty tuple for a class
        self.threshold, self.warm_up = threshold, warm_up
        self._names: tuple[str, ...] = self.features or ()
        self._slots: dict[str, int] = {}
        # (values seen, mean, sum of squared distances from the mean), slots, features
        self._state = np.zeros((3, 0, len(self._names)))

    def process_many(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector:
        """Score then learn n rows in order. `X` is (n, features), NaN where missing; returns (n,) scores."""
        values = usable(X, len(self._names))
        slots = self._slots_of(keys)
        scores = np.zeros(len(slots))
        by_key = np.argsort(slots, kind="stable")
        turn = _turns(slots, by_key)
        by_turn, begin, turns = np.argsort(turn, kind="stable"), 0, 0
        for width in np.bincount(turn).tolist():  # never widens
            if width < WIDE:
                break
            wave = by_turn[begin : begin + width]
            scores[wave] = self._wave(slots[wave], values[wave])
            begin, turns = begin + width, turns + 1
        rest = by_key[turn[by_key] >= turns]
        cuts = np.flatnonzero(np.diff(slots[rest])) + 1
        for rows in np.split(rest, cuts) if len(rest) else ():
            scores[rows] = self._series(int(slots[rows[0]]), values[rows])
        return scores

    def score_rows(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector:
        """What each row would score if it came next, by itself; nothing is learnt."""
        values = usable(X, len(self._names))
        state = np.zeros((3, len(keys), len(self._names)))
        held = [row for row, key in enumerate(keys) if key in self._slots]
        state[:, held] = self._state[:, [self._slots[keys[row]] for row in held]]
        return self._scored(state, values)[0]

    def _meet(self, names: Sequence[str]) -> None:
        new = sorted(set(names).difference(self._names))
        self._names = (*self._names, *new)
        room = np.zeros((*self._state.shape[:2], len(new)))
        self._state = np.concatenate([self._state, room], axis=2)

    def _slots_of(self, keys: Sequence[str]) -> NDArray[np.intp]:
        slots = self._slots
        for key in keys:
            slots.setdefault(key, len(slots))
        missing = len(slots) - self._state.shape[1]
        if missing > 0:
            room = np.zeros((3, max(missing, self._state.shape[1]), len(self._names)))
            self._state = np.concatenate([self._state, room], axis=1)
        return np.fromiter(map(slots.__getitem__, keys), dtype=np.intp, count=len(keys))

    def _wave(self, slots: NDArray[np.intp], x: FloatMatrix) -> FloatVector:
        """One row each of several keys. The same operations in the same order as `_series`: the same bits."""
        scores, after = self._scored(self._state[:, slots], x)
        self._state[:, slots] = after
        return scores

    def _scored(self, before: NDArray[np.float64], x: FloatMatrix) -> tuple[FloatVector, NDArray[np.float64]]:
        n, mean, squares = before
        delta = x - mean
        spread = np.sqrt(squares / np.maximum(n - 1.0, 1.0))
        scores = np.where(n >= self.warm_up, np.abs(delta) / (spread + EPSILON), 0.0)
        learnt = n + 1.0
        moved = mean + (1.0 / learnt) * delta
        after = np.stack([learnt, moved, squares + delta * (x - moved)])
        missing = np.isnan(x)
        largest: FloatVector = np.where(missing, 0.0, scores).max(axis=1, initial=0.0)
        return largest, np.where(missing, before, after)

    def _series(self, slot: int, x: FloatMatrix) -> FloatVector:
        """Rows of one key, feature by feature: features do not know of each other."""
        scores = np.zeros(len(x))
        for number in range(len(self._names)):
            state, column = _deviations(
                self._state[:, slot, number].tolist(), x[:, number].tolist(), self.warm_up
            )
            self._state[:, slot, number] = state
            np.maximum(scores, column, out=scores)
        return scores

    def snapshot(self) -> bytes:
        """The state of every key; the same states give the same bytes."""
        keys = sorted(self._slots)
        state = self._state[:, [self._slots[key] for key in keys]]
        return seal(
            "standard deviation",
            msgspec.msgpack.encode((self._names, keys, state.astype("<f8").tobytes())),
        )

    def restore(self, state: bytes, keep: Keep = lambda _key: True) -> None:
        """Add the keys of a snapshot for which `keep(key)` holds; a key that is held already is replaced.

        Features go by name: one that the snapshot does not know begins anew. A snapshot of another kind of
        detector is passed over. Raises StateError when it is damaged.
        """
        body = unseal("standard deviation", state)
        if body is None:
            return
        features, keys, data = msgspec.msgpack.decode(body, type=tuple[list[str], list[str], bytes])
        if not self.features:
            self._meet(features)
        stored = np.frombuffer(data, dtype="<f8").reshape(3, len(keys), len(features))
        kept = [number for number, key in enumerate(keys) if keep(key)]
        slots = self._slots_of([keys[number] for number in kept])
        self._state[:, slots] = 0.0
        for number, name in enumerate(self._names):
            if name in features:
                self._state[:, slots, number] = stored[:, kept, features.index(name)]


def _deviations(
    state: Sequence[float], values: Sequence[float], warm_up: int
) -> tuple[list[float], list[float]]:
    """The state after `values`, and the score of each before it was learnt."""
    n, mean, squares = state
    scores = []
    for x in values:
        if x != x:
            scores.append(0.0)
            continue
        delta = x - mean
        scores.append(abs(delta) / (math.sqrt(squares / (n - 1.0)) + EPSILON) if n >= warm_up else 0.0)
        n += 1.0
        mean += (1.0 / n) * delta
        squares += delta * (x - mean)
    return [n, mean, squares], scores


def _turns(slots: NDArray[np.intp], by_key: NDArray[np.intp]) -> NDArray[np.intp]:
    """For each row, how many rows of the same key come before it; `by_key` sorts the rows by key, stably."""
    ordered = slots[by_key]
    begins = np.flatnonzero(np.diff(ordered, prepend=-1))
    counted = np.arange(len(slots)) - np.repeat(begins, np.diff(begins, append=len(slots)))
    turns = np.empty(len(slots), dtype=np.intp)
    turns[by_key] = counted
    return turns


def _river_version() -> str:
    return metadata.version("river")
