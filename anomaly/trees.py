"""Compiled half-space trees (Tan, Ting and Liu, IJCAI 2011) with the scores of river, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from river import base

from anomaly.detector import AnyArray, FloatMatrix, FloatVector, Keep, StateError, Times
from anomaly.kernels import half_space_trees as kernel
from anomaly.keyed_state.container import refusing, seal_parts, unseal_parts
from anomaly.keyed_state.table import Columns, Table, distinct, from_bytes, keys_in, to_bytes
from anomaly.rows import usable
from anomaly.single_row import OneDevice

Limits = Mapping[str, tuple[float, float]]
_PADDING = 0.15  # as in river: splits are not placed near the edges of the range of a node
_MOST_FEATURES = 62


class HalfSpaceTrees(OneDevice, base.AnomalyDetector):
    """River's `HalfSpaceTrees` with the same seed for each key, preceded by its `MinMaxScaler` if `scaled`.

    Scores are from 0 to 1, and 0 until a window of `window_size` rows is complete and `warm_up` rows are learnt.
    Trees are built over the features of the first row of a key, with expected values in `limits` (default 0 to 1).
    A row without any feature is neither scored nor learnt. At most `max_keys` keys are kept, `bytes_per_key` each;
    another one replaces the key that has been silent longest.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - river's models have plain parameters
        self,
        features: Sequence[str] | None = None,
        threshold: float = 0.95,
        n_trees: int = 10,
        height: int = 8,
        window_size: int = 250,
        limits: Limits | None = None,
        seed: int = 0,
        scaled: bool = True,
        warm_up: int = 0,
        max_keys: int = 20_000,
    ) -> None:
        if not 0 < window_size < 2**16 or n_trees < 1 or not 1 <= height <= 16:
            raise ValueError("window_size must be 1 to 65535, n_trees at least 1, height 1 to 16")
        self.features = tuple(features) if features else None  # river would treat an empty tuple as a class
        self.threshold = threshold
        self.n_trees, self.height, self.window_size = n_trees, height, window_size
        self.limits, self.seed, self.scaled = dict(limits or {}), seed, scaled
        self.warm_up, self.max_keys = warm_up, max_keys
        self._names: tuple[str, ...] = ()
        self._begin(self.features or ())

    def _begin(self, names: Sequence[str]) -> None:
        if len(names) > _MOST_FEATURES:
            raise ValueError(f"{len(names)} features (at most {_MOST_FEATURES} are supported)")
        self._names = tuple(names)
        self._table = Table(self.max_keys, self._layout())
        self._known: dict[int, int] = {}
        self._trees = np.zeros((0, self.n_trees, 2**self.height - 1), np.int64)
        self._splits = np.zeros(self._trees.shape)

    def _layout(self) -> Columns:
        return self._shapes(len(self._names))

    def _shapes(self, features: int) -> Columns:
        return {
            "header": ((kernel.HEADER,), np.int64),
            "ranges": ((2, features), np.float64),
            "masses": ((self.n_trees, 2, 2 ** (self.height + 1) - 1), np.uint16),
        }

    @property
    def bytes_per_key(self) -> int:
        """Memory of the state of one key in bytes, without its name (about 150 bytes)."""
        return self._table.bytes_per_key

    def process_many(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector:
        """Score and then learn n rows in order. `X` is (n, features), NaN where missing; returns (n,) scores."""
        values = usable(X, len(self._names))
        slots, fresh = self._table.take(keys)
        built = self._built(slots, fresh, values)
        return self._run([self._table[name] for name in self._layout()], slots, fresh, built, values)

    def forget_keys(self, keys: Collection[str]) -> None:
        """Forget the state of these keys."""
        self._table.forget(keys)

    def score_rows(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector:
        """Score each row as if it were the next one of its key, without learning it."""
        values, slots = usable(X, len(self._names)), self._table.find(keys)
        known = np.flatnonzero(slots >= 0)
        scores = np.zeros(len(keys))
        own = [self._table[name][slots[known]] for name in self._layout()]
        ready = own[0][:, kernel.READY] == 1
        own, known = [array[ready] for array in own], known[ready]
        nothing = np.zeros(len(known), np.bool_)
        scores[known] = self._run(
            own, np.arange(len(known)), nothing, np.zeros(len(known), np.int64), values[known]
        )
        return scores

    def _run(
        self,
        state: Sequence[AnyArray],
        slots: NDArray[np.intp],
        fresh: NDArray[np.bool_],
        built: NDArray[np.int64],
        values: FloatMatrix,
    ) -> FloatVector:
        scores = np.zeros(len(values))
        rules = kernel.Rules(self.height, self.window_size, self.warm_up, self.scaled)
        header, ranges, masses = state
        kernel.all_rows(
            header, ranges, masses, self._trees, self._splits, slots, fresh, built, values, rules, scores
        )
        return scores

    def _built(
        self, slots: NDArray[np.intp], fresh: NDArray[np.bool_], values: FloatMatrix
    ) -> NDArray[np.int64]:
        """Return the index of the trees with which the key of each row starts, 0 if it has trees already."""
        numbers = np.zeros(len(values), np.int64)
        bare = fresh | (self._table["header"][slots, kernel.TREES] < 0)
        if not bare.any():
            return numbers
        masks = ~np.isnan(values) @ (1 << np.arange(len(self._names), dtype=np.int64))
        waiting = set(slots[bare].tolist())
        for row in np.flatnonzero(bare | np.isin(slots, slots[bare])).tolist():
            if fresh[row]:
                waiting.add(int(slots[row]))
            if masks[row] and int(slots[row]) in waiting:
                waiting.remove(int(slots[row]))
                numbers[row] = self._number(int(masks[row]))
        return numbers

    def _number(self, mask: int) -> int:
        """Return the index of the trees over these features, which are built if necessary."""
        if mask not in self._known:
            self._known[mask] = len(self._known)
            trees, splits = self._grown([name for i, name in enumerate(self._names) if mask >> i & 1])
            self._trees = np.concatenate([self._trees, trees[None]])
            self._splits = np.concatenate([self._splits, splits[None]])
        return self._known[mask]

    def _grown(self, names: Sequence[str]) -> tuple[NDArray[np.int64], FloatMatrix]:
        """Return feature and split of each node, drawn in the order of river: tree by tree, depth first."""
        rng = random.Random(self.seed)
        trees, splits = np.zeros(self._trees.shape[1:], np.int64), np.zeros(self._trees.shape[1:])
        columns = {name: self._names.index(name) for name in names}

        def grow(tree: int, node: int, limits: dict[str, tuple[float, float]]) -> None:
            if node >= trees.shape[1]:
                return
            widths = [high - low for low, high in limits.values()]
            on = rng.choices(population=list(limits), weights=widths)[0]
            low, high = limits[on]
            at = rng.uniform(low + _PADDING * (high - low), high - _PADDING * (high - low))
            trees[tree, node], splits[tree, node] = columns[on], at
            grow(tree, 2 * node + 1, limits | {on: (low, at)})
            grow(tree, 2 * node + 2, limits | {on: (at, high)})

        for tree in range(self.n_trees):
            grow(tree, 0, {name: self.limits.get(name, (0.0, 1.0)) for name in sorted(names)})
        return trees, splits

    def _learn_names(self, names: Sequence[str]) -> None:
        """Set the features from the first row; as in river, features of later rows are ignored."""
        if not self._names:
            self._begin(sorted(names))

    def _kind(self) -> str:
        given = (
            self.n_trees,
            self.height,
            self.window_size,
            self.seed,
            self.scaled,
            sorted(self.limits.items()),
        )
        return f"half-space trees {given}"

    def snapshot(self) -> bytes:
        """Serialize the state of every key, least recently seen first; equal states give equal bytes."""
        head, arrays = self._table.dump()
        masks, header = self._used(arrays["header"])
        parts = map(to_bytes, {**arrays, "header": header}.values())
        return seal_parts(self._kind(), [msgspec.msgpack.encode((self._names, masks)), head, *parts])

    def _used(self, header: NDArray[np.int64]) -> tuple[list[int], NDArray[np.int64]]:
        """Return the sorted feature masks of the trees in use, and headers that refer to trees by index."""
        known = {number: mask for mask, number in self._known.items()}
        mine = [known.get(number, -1) for number in header[:, kernel.TREES].tolist()]
        masks = {mask: at for at, mask in enumerate(sorted({mask for mask in mine if mask >= 0}))}
        renamed = header.copy()
        renamed[:, kernel.TREES] = [masks.get(mask, -1) for mask in mine]
        return list(masks), renamed

    def restore(self, state: bytes, keep: Keep = lambda _key: True) -> None:
        """Add the keys of a snapshot for which `keep(key)` holds; a key that is held already is replaced.

        A snapshot of another kind of detector, of other parameters or of other features is passed over. Raises
        StateError when it is damaged.
        """
        parts = unseal_parts(self._kind(), state)
        if parts is None:
            return
        with refusing():
            names, masks = msgspec.msgpack.decode(parts[0], type=tuple[tuple[str, ...], list[int]])
            keys = keys_in(parts[1])
            raw = zip(parts[2:], self._shapes(len(distinct(names))).items(), strict=True)
            stored = {name: from_bytes(array, (keys, *shape), kind) for array, (name, (shape, kind)) in raw}
        _check(stored["header"], masks, len(names), self.window_size)
        self._learn_names(names)
        if names != self._names:
            return
        slots, kept = self._table.load(parts[1], keep, keys)
        header = stored["header"][kept]
        header[:, kernel.TREES] = [
            self._number(masks[trees]) if trees >= 0 else -1 for trees in header[:, kernel.TREES].tolist()
        ]
        for name, array in stored.items():
            self._table[name][slots] = header if name == "header" else array[kept]


def _check(header: NDArray[np.int64], masks: Sequence[int], features: int, window: int) -> None:
    """Raise StateError if a key refers to missing trees or has impossible counts."""
    trees, counter, ready, rows = header.T
    possible = all(0 < mask < 2**features for mask in masks) and len(set(masks)) == len(masks)
    bare = (trees == -1) & (counter == 0) & (ready == 0) & (rows == 0)
    grown = (trees >= 0) & (trees < len(masks)) & (counter >= 0) & (counter < window) & (rows > 0)
    if not possible or not (bare | (grown & ((ready == 0) | (ready == 1)) & (rows < 2**62))).all():
        raise StateError("the trees or counts of a key are impossible")
