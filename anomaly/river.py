"""Detectors on river: any model of river as it is, and its standard absolute deviation for many devices at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from importlib import metadata
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray
from river import base

from anomaly.detector import Detector, DetectorFactory, FloatMatrix, FloatVector, Keep, StateError, Times
from anomaly.kernels.compiled import compiled
from anomaly.keyed_state.container import Buffer, refusing, seal_parts, unseal_parts
from anomaly.keyed_state.pickles import Names, names_in, pickled, unpickled
from anomaly.keyed_state.table import Table, distinct, from_bytes, keys_in, to_bytes
from anomaly.rows import LARGEST, checked, usable
from anomaly.single_row import OneDevice

# river adds this to a standard deviation, so that a constant series has a score.
EPSILON = 1e-10
# A model that has learnt so many rows, of which some values above _HIGH are missing, tells of what it is made.
_PROBES, _HIGH = 300, 3.0
_MOMENTS, _DEVIATION = "moments", "standard deviation 2"


class Model(Protocol):
    """What is used of a river model."""

    def score_one(self, x: dict[str, float]) -> float:
        """The higher, the more anomalous."""
        ...

    def learn_one(self, x: dict[str, float]) -> None:
        """Takes the row into account from now on."""
        ...


def with_river(
    factory: Callable[[], Model],
    threshold: float,
    warm_up: int = 0,
    max_keys: int = 20_000,
    classes: Collection[type] = (),
) -> DetectorFactory:
    """What an Event's `detector` takes: `with_river(lambda: HalfSpaceTrees(seed=1), threshold=0.95)`.

    `classes` as in `RiverDetector`.
    """

    def detector(features: Sequence[str]) -> Detector:
        return RiverDetector(factory, features, threshold, warm_up, max_keys, classes)

    detector.__name__ = type(factory()).__name__
    return detector


class RiverDetector:
    """A river model for each key: `score_one`, then `learn_one`, in order.

    A missing feature is left out of the model's row; a row without any is neither scored nor learnt. The first
    `warm_up` rows of a key score 0, as does what the model scores below 0 or not finite. `factory` makes a new
    model each time, with a fixed seed where it draws at random. Supervised models (those that take a `y`) are
    refused with TypeError, and so is a model that cannot be pickled.

    A model that raises on a row has not judged it: the row scores NaN, which is no alert, and the model goes on with
    the next one. At most `max_keys` keys are held; one more takes the place of the one that was silent for longest.

    A stored state is a pickle, and may name only those classes that the model consists of: those of a new model, and
    of one that has learnt some rows. `classes` are others that it makes later.

    Not every model obeys `anomaly.laws`: LocalOutlierFactor scores a constant series 1, OneClassSVM more than 0.
    """

    def __init__(
        self,
        factory: Callable[[], Model],
        features: Sequence[str],
        threshold: float,
        warm_up: int = 0,
        max_keys: int = 20_000,
        classes: Collection[type] = (),
    ) -> None:
        model = factory()
        if getattr(model, "_supervised", False):
            raise TypeError(f"{type(model).__name__} learns a target; a detector scores a row by itself")
        pickled(model)
        self.threshold = threshold
        self._factory, self._features, self._warm_up = factory, tuple(features), warm_up
        self._kind = f"river 2:{type(model).__module__}.{type(model).__qualname__}"
        self._classes = frozenset((each.__module__, each.__qualname__) for each in classes)
        self._table = Table(max_keys, {"rows": ((), np.int64)})
        self._models: dict[int, Model] = {}
        self._known: Names | None = None

    def process_many(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector:
        """Score then learn n rows in order. `X` is (n, features), NaN where missing; returns (n,) scores."""
        rows = usable(X, len(self._features)).tolist()
        places, fresh = self._table.take(keys)
        seen, scores = self._table["rows"], np.zeros(len(rows))
        for at, (place, anew, row) in enumerate(zip(places.tolist(), fresh.tolist(), rows, strict=True)):
            if anew:
                self._models[place], seen[place] = self._factory(), 0
            present = {name: value for name, value in zip(self._features, row, strict=True) if value == value}
            if present:
                scores[at] = self._judged(self._models[place], present, bool(seen[place] >= self._warm_up))
                seen[place] += 1
        return scores

    def forget_keys(self, keys: Collection[str]) -> None:
        """From now on these keys are as if they had never been seen."""
        for place in self._table.forget(keys):
            del self._models[place]

    def _judged(self, model: Model, x: dict[str, float], warm: bool) -> float:
        """Which rows a model takes is a fact about them: row by row it is the same however they are batched."""
        try:
            score = float(model.score_one(x)) if warm else 0.0
            model.learn_one(x)
        except Exception:  # whatever a model raises
            return math.nan
        return score if 0.0 < score < math.inf else 0.0

    def snapshot(self) -> bytes:
        """The state of every key, each in a pickle of its own."""
        head, arrays = self._table.dump()
        models = [pickled(self._models[place]) for place in self._table.places()]
        return seal_parts(self._kind, [_river_version().encode(), head, to_bytes(arrays["rows"]), *models])

    def restore(self, state: bytes, keep: Keep = lambda _key: True) -> None:
        """Add the keys of a snapshot for which `keep(key)` holds; a key that is held already is replaced.

        A snapshot of another kind of model is passed over. Raises StateError when it is damaged or when this
        version of river cannot read it; nothing of it was taken then.
        """
        parts = unseal_parts(self._kind, state)
        if parts is None:
            return
        (version, head, rows), models = parts[:3], parts[3:]
        with refusing():
            learnt, told = from_bytes(rows, (len(models),), np.int64), bytes(version).decode()
            if int(learnt.min(initial=0)) < 0:
                raise StateError("a key has learnt a negative number of rows")
            kept = self._table.kept(head, keep, len(models))
            names = self._names()
            read = {at: self._read(models[at], told, names) for at in kept.tolist()}
        places, kept = self._table.load(head, keep, len(models))
        self._table["rows"][places] = learnt[kept]
        self._models |= {place: read[at] for place, at in zip(places.tolist(), kept.tolist(), strict=True)}

    def _names(self) -> Names:
        """The classes and functions that the declared model consists of, new and when it has learnt some rows."""
        if self._known is None:
            new, taught = self._factory(), self._factory()
            rng = np.random.default_rng(0)
            for row in rng.lognormal(size=(_PROBES, len(self._features))).tolist():
                present = [
                    (name, value) for name, value in zip(self._features, row, strict=True) if value < _HIGH
                ]
                self._judged(taught, dict(present or zip(self._features, row, strict=True)), True)
            self._known = names_in([new, taught]) | self._classes
        return self._known

    def _read(self, model: Buffer, version: str, names: Names) -> Model:
        try:
            read: Model = unpickled(bytes(model), names)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever the classes in it raise; a panic of Rust is no Exception
            raise StateError(
                f"a {self._kind} stored by river {version} cannot be read by {_river_version()}: {error}; "
                "go back to that version, name a class that the model makes later in with_river(classes=…), or begin "
                "anew under another application name"
            ) from error
        if type(read) is not type(self._factory()):
            raise StateError(f"a {type(read).__qualname__} is stored in place of a model")
        return read


class StandardDeviation(OneDevice, base.AnomalyDetector):
    """How many standard deviations a value lies from its device's mean so far; a row scores its largest.

    For each key and feature river's `StandardAbsoluteDeviation`: mean and sample variance by Welford's method.
    A feature scores 0 in the first `warm_up` (at least 2) values of a key. The default threshold is past what
    heavy tails bring every day: of 25,920 hourly readings of six pollutants it flags 0.4 %. At most `max_keys` keys
    are held, `bytes_per_key` each; one more takes the place of the one that was silent for longest.
    """

    def __init__(
        self,
        features: Sequence[str] | None = None,
        threshold: float = 6.0,
        warm_up: int = 24,
        max_keys: int = 1_000_000,
    ) -> None:
        if warm_up < 2:
            raise ValueError(f"warm_up = {warm_up}: a deviation needs at least 2 values")
        self.features = tuple(features) if features else None  # river takes an empty tuple for a class
        self.threshold, self.warm_up, self.max_keys = threshold, warm_up, max_keys
        self._names: tuple[str, ...] = self.features or ()
        self._table = Table(max_keys, {_MOMENTS: ((3, len(self._names)), np.float64)})

    @property
    def bytes_per_key(self) -> int:
        """What the state of one key takes; its name comes on top, about 150 bytes."""
        return self._table.bytes_per_key

    def process_many(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector:
        """Score then learn n rows in order. `X` is (n, features), NaN where missing; returns (n,) scores."""
        values, scores = checked(X, len(keys), len(self._names)), np.zeros(len(keys))
        places, fresh = self._table.take(keys)
        deviations(self._table[_MOMENTS], places, fresh, values, float(self.warm_up), scores)
        return scores

    def forget_keys(self, keys: Collection[str]) -> None:
        """From now on these keys are as if they had never been seen."""
        self._table.forget(keys)

    def score_rows(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector:
        """What each row would score if it came next, by itself; nothing is learnt."""
        values, scores = checked(X, len(keys), len(self._names)), np.zeros(len(keys))
        places = self._table.find(keys)
        moments = self._table.copied(places)[_MOMENTS]
        deviations(moments, np.arange(len(keys)), places < 0, values, float(self.warm_up), scores)
        return scores

    def _learn_names(self, names: Sequence[str]) -> None:
        new = sorted(set(names).difference(self._names))
        self._names = (*self._names, *new)
        moments = self._table[_MOMENTS]
        room = np.zeros((*moments.shape[:2], len(new)))
        self._table.replace({_MOMENTS: np.concatenate([moments, room], axis=2)})

    def snapshot(self) -> bytes:
        """The state of every key, the longest silent first; the same states give the same bytes."""
        head, arrays = self._table.dump()
        return seal_parts(_DEVIATION, [msgspec.msgpack.encode(self._names), head, to_bytes(arrays[_MOMENTS])])

    def restore(self, state: bytes, keep: Keep = lambda _key: True) -> None:
        """Add the keys of a snapshot for which `keep(key)` holds; a key that is held already is replaced.

        Features go by name: one that the snapshot does not know begins anew. A snapshot of another kind of
        detector is passed over. Raises StateError when it is damaged.
        """
        parts = unseal_parts(_DEVIATION, state)
        if parts is None:
            return
        with refusing():
            first, head, raw = parts
            names = distinct(msgspec.msgpack.decode(first, type=tuple[str, ...]))
            keys = keys_in(head)
            stored = from_bytes(raw, (keys, 3, len(names)), np.float64)
        if not self.features:
            self._learn_names(names)
        places, kept = self._table.load(head, keep, keys)
        stored = stored[kept]
        moments = self._table[_MOMENTS]
        moments[places] = 0.0
        for number, name in enumerate(self._names):
            if name in names:
                moments[places, :, number] = stored[:, :, names.index(name)]


@compiled
def deviations(
    moments: NDArray[np.float64],
    places: NDArray[np.intp],
    fresh: NDArray[np.bool_],
    X: FloatMatrix,
    warm_up: float,
    scores: FloatVector,
) -> None:
    """All rows in order. `moments` holds for each place (values seen, mean, sum of squared distances) by feature."""
    for i in range(len(X)):
        p = places[i]
        if fresh[i]:
            moments[p] = 0.0
        for f in range(X.shape[1]):
            x = X[i, f]
            if not abs(x) <= LARGEST:
                continue
            n, mean, squares = moments[p, 0, f], moments[p, 1, f], moments[p, 2, f]
            delta = x - mean
            if n >= warm_up:
                scores[i] = max(scores[i], abs(delta) / (np.sqrt(squares / (n - 1.0)) + EPSILON))
            mean += delta / (n + 1.0)
            moments[p, 0, f], moments[p, 1, f] = n + 1.0, mean
            moments[p, 2, f] = squares + delta * (x - mean)


def _river_version() -> str:
    return metadata.version("river")
