"""Detectors based on river: any river model, and its standard absolute deviation for many devices at once."""

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

# Added to a standard deviation by river, so that the score of a constant series is defined.
EPSILON = 1e-10
# Rows that a model learns to find the classes it consists of; values above _HIGH are left out, to cover missing ones.
_PROBES, _HIGH = 300, 3.0
_MOMENTS, _DEVIATION = "moments", "standard deviation 2"


class Model(Protocol):
    """The methods of a river model that a detector uses."""

    def score_one(self, x: dict[str, float]) -> float:
        """Return the score of a row; higher means more anomalous."""
        ...

    def learn_one(self, x: dict[str, float]) -> None:
        """Learn a row."""
        ...


def with_river(
    factory: Callable[[], Model],
    threshold: float,
    warm_up: int = 0,
    max_keys: int = 20_000,
    classes: Collection[type] = (),
) -> DetectorFactory:
    """Return a detector factory, for `Event.detector`: `with_river(lambda: HalfSpaceTrees(seed=1), threshold=0.95)`.

    The parameters are those of `RiverDetector`.
    """

    def detector(features: Sequence[str]) -> Detector:
        return RiverDetector(factory, features, threshold, warm_up, max_keys, classes)

    detector.__name__ = type(factory()).__name__
    return detector


class RiverDetector:
    """A separate river model per key: `score_one`, then `learn_one`, in order.

    A missing feature is omitted from the row given to the model; a row without any feature is neither scored nor
    learnt. The first `warm_up` rows of a key score 0, as do rows that the model scores below 0 or not finite. A new
    model is returned by each call of `factory`, with a fixed seed if the model is random. Supervised models
    (those that take a `y`) and models that cannot be pickled are rejected with TypeError.

    If a model raises on a row, the row scores NaN, which is no alert, and processing continues with the next row. At
    most `max_keys` keys are kept; another one replaces the key that has been silent longest.

    A stored state is a pickle that may only refer to classes the model consists of: those of a new model and of one
    that has learnt some rows. `classes` lists further classes that the model creates later.

    Not every model satisfies `anomaly.laws`: LocalOutlierFactor scores a constant series 1, OneClassSVM more than 0.
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
            raise TypeError(f"{type(model).__name__} is supervised (expected a model that needs no target)")
        pickled(model)
        self.threshold = threshold
        self._factory, self._features, self._warm_up = factory, tuple(features), warm_up
        self._kind = f"river 2:{type(model).__module__}.{type(model).__qualname__}"
        self._classes = frozenset((each.__module__, each.__qualname__) for each in classes)
        self._table = Table(max_keys, {"rows": ((), np.int64)})
        self._models: dict[int, Model] = {}
        self._known: Names | None = None

    def process_many(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector:
        """Score and then learn n rows in order. `X` is (n, features), NaN where missing; returns (n,) scores."""
        rows = usable(X, len(self._features)).tolist()
        slots, fresh = self._table.take(keys)
        seen, scores = self._table["rows"], np.zeros(len(rows))
        for at, (slot, new, row) in enumerate(zip(slots.tolist(), fresh.tolist(), rows, strict=True)):
            if new:
                self._models[slot], seen[slot] = self._factory(), 0
            present = {name: value for name, value in zip(self._features, row, strict=True) if value == value}
            if present:
                warm = bool(seen[slot] >= self._warm_up)
                scores[at] = self._score_and_learn(self._models[slot], present, warm)
                seen[slot] += 1
        return scores

    def forget_keys(self, keys: Collection[str]) -> None:
        """Forget the state of these keys."""
        for slot in self._table.forget(keys):
            del self._models[slot]

    def _score_and_learn(self, model: Model, x: dict[str, float], warm: bool) -> float:
        """Score and learn one row; NaN if the model raises, without an effect on other rows."""
        try:
            score = float(model.score_one(x)) if warm else 0.0
            model.learn_one(x)
        except Exception:  # models raise errors of any type
            return math.nan
        return score if 0.0 < score < math.inf else 0.0

    def snapshot(self) -> bytes:
        """Serialize the state of every key, each as its own pickle."""
        head, arrays = self._table.dump()
        models = [pickled(self._models[slot]) for slot in self._table.slots()]
        return seal_parts(self._kind, [_river_version().encode(), head, to_bytes(arrays["rows"]), *models])

    def restore(self, state: bytes, keep: Keep = lambda _key: True) -> None:
        """Load the keys of a snapshot for which `keep(key)` is true; existing keys are replaced.

        A snapshot of another kind of model is ignored. Raises StateError if it is damaged or cannot be read by this
        version of river; then nothing of it is loaded.
        """
        parts = unseal_parts(self._kind, state)
        if parts is None:
            return
        (version, head, rows), models = parts[:3], parts[3:]
        with refusing():
            learnt, stored_by = from_bytes(rows, (len(models),), np.int64), bytes(version).decode()
            if int(learnt.min(initial=0)) < 0:
                raise StateError("the number of learnt rows of a key is negative")
            kept = self._table.kept(head, keep, len(models))
            names = self._names()
            read = {at: self._read(models[at], stored_by, names) for at in kept.tolist()}
        slots, kept = self._table.load(head, keep, len(models))
        self._table["rows"][slots] = learnt[kept]
        self._models |= {slot: read[at] for slot, at in zip(slots.tolist(), kept.tolist(), strict=True)}

    def _names(self) -> Names:
        """Return the classes and functions of the declared model, both new and after it has learnt some rows."""
        if self._known is None:
            new, trained = self._factory(), self._factory()
            rng = np.random.default_rng(0)
            for row in rng.lognormal(size=(_PROBES, len(self._features))).tolist():
                present = [
                    (name, value) for name, value in zip(self._features, row, strict=True) if value < _HIGH
                ]
                self._score_and_learn(trained, dict(present or zip(self._features, row, strict=True)), True)
            self._known = names_in([new, trained]) | self._classes
        return self._known

    def _read(self, model: Buffer, version: str, names: Names) -> Model:
        try:
            read: Model = unpickled(bytes(model), names)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # classes raise errors of any type; a Rust panic is not an Exception
            raise StateError(
                f"a {self._kind} stored by river {version} cannot be read by {_river_version()}: {error}; "
                "use that version, list classes that the model creates later in with_river(classes=…), or start with "
                "an empty state under another application name"
            ) from error
        if type(read) is not type(self._factory()):
            raise StateError(f"the state contains a {type(read).__qualname__} (expected a model)")
        return read


class StandardDeviation(OneDevice, base.AnomalyDetector):
    """Number of standard deviations between a value and the mean of its device; a row scores its largest feature.

    For each key and feature this is river's `StandardAbsoluteDeviation`: mean and sample variance by Welford's
    method. A feature scores 0 in the first `warm_up` (at least 2) values of a key. The default threshold tolerates
    heavy tails: of 25,920 hourly readings of six pollutants it flags 0.4 %. At most `max_keys` keys are kept,
    `bytes_per_key` each; another one replaces the key that has been silent longest.
    """

    def __init__(
        self,
        features: Sequence[str] | None = None,
        threshold: float = 6.0,
        warm_up: int = 24,
        max_keys: int = 1_000_000,
    ) -> None:
        if warm_up < 2:
            raise ValueError(f"warm_up is {warm_up} (expected at least 2, as a deviation needs two values)")
        self.features = tuple(features) if features else None  # river would treat an empty tuple as a class
        self.threshold, self.warm_up, self.max_keys = threshold, warm_up, max_keys
        self._names: tuple[str, ...] = self.features or ()
        self._table = Table(max_keys, {_MOMENTS: ((3, len(self._names)), np.float64)})

    @property
    def bytes_per_key(self) -> int:
        """Memory of the state of one key in bytes, without its name (about 150 bytes)."""
        return self._table.bytes_per_key

    def process_many(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector:
        """Score and then learn n rows in order. `X` is (n, features), NaN where missing; returns (n,) scores."""
        values, scores = checked(X, len(keys), len(self._names)), np.zeros(len(keys))
        slots, fresh = self._table.take(keys)
        deviations(self._table[_MOMENTS], slots, fresh, values, float(self.warm_up), scores)
        return scores

    def forget_keys(self, keys: Collection[str]) -> None:
        """Forget the state of these keys."""
        self._table.forget(keys)

    def score_rows(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector:
        """Score each row as if it were the next one of its key, without learning it."""
        values, scores = checked(X, len(keys), len(self._names)), np.zeros(len(keys))
        slots = self._table.find(keys)
        moments = self._table.copied(slots)[_MOMENTS]
        deviations(moments, np.arange(len(keys)), slots < 0, values, float(self.warm_up), scores)
        return scores

    def _learn_names(self, names: Sequence[str]) -> None:
        new = sorted(set(names).difference(self._names))
        self._names = (*self._names, *new)
        moments = self._table[_MOMENTS]
        unseen = np.zeros((*moments.shape[:2], len(new)))
        self._table.replace({_MOMENTS: np.concatenate([moments, unseen], axis=2)})

    def snapshot(self) -> bytes:
        """Serialize the state of every key, least recently seen first; equal states give equal bytes."""
        head, arrays = self._table.dump()
        return seal_parts(_DEVIATION, [msgspec.msgpack.encode(self._names), head, to_bytes(arrays[_MOMENTS])])

    def restore(self, state: bytes, keep: Keep = lambda _key: True) -> None:
        """Load the keys of a snapshot for which `keep(key)` is true; existing keys are replaced.

        Features are matched by name; one that the snapshot lacks starts without history. A snapshot of another kind
        of detector is ignored. Raises StateError if the snapshot is damaged.
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
        slots, kept = self._table.load(head, keep, keys)
        stored = stored[kept]
        moments = self._table[_MOMENTS]
        moments[slots] = 0.0
        for number, name in enumerate(self._names):
            if name in names:
                moments[slots, :, number] = stored[:, :, names.index(name)]


@compiled
def deviations(
    moments: NDArray[np.float64],
    slots: NDArray[np.intp],
    fresh: NDArray[np.bool_],
    X: FloatMatrix,
    warm_up: float,
    scores: FloatVector,
) -> None:
    """Score and learn all rows in order.

    `moments` (slots, 3, features) are the number of values seen, their mean and their sum of squared deviations.
    """
    for i in range(len(X)):
        p = slots[i]
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
