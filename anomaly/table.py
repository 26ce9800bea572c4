"""The state of many keys: arrays with one place for each key, a bound on their number, and their way to bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import DTypeLike, NDArray

from anomaly.container import Buffer
from anomaly.detector import Keep

Places = NDArray[np.intp]
Fresh = NDArray[np.bool_]
Columns = Mapping[str, tuple[tuple[int, ...], DTypeLike]]


class Table:
    """Keys, the longest silent first, and the arrays that hold their states; at most `most` keys.

    A key that finds no room takes the place of the one that was silent for longest: that depends on the order of
    the rows alone, so every run evicts the same keys. `columns` names each array, its shape for one key and its
    type. Whoever writes the arrays clears a place where `take` says that it begins anew.
    """

    def __init__(self, most: int, columns: Columns) -> None:
        if most < 1:
            raise ValueError(f"max_keys = {most}: at least one key must have a place")
        self._most = most
        self._places: OrderedDict[str, int] = OrderedDict()
        self._rows = 0
        self._seen = np.zeros(0, np.int64)
        self._arrays = {name: np.zeros((0, *shape), dtype) for name, (shape, dtype) in columns.items()}

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The array of that name, by place. It moves when keys are added."""
        return self._arrays[name]

    def replace(self, name: str, array: NDArray[Any]) -> None:
        """Another array of that name, with the same places."""
        self._arrays[name] = array

    @property
    def bytes_per_key(self) -> int:
        """What the arrays take for one key; its name comes on top, about 150 bytes."""
        return 8 + sum(array[:0].itemsize * int(np.prod(array.shape[1:])) for array in self._arrays.values())

    def find(self, keys: Sequence[str]) -> Places:
        """The place of each key, -1 where it is not held."""
        return np.array([self._places.get(key, -1) for key in keys], np.intp)

    def take(self, keys: Sequence[str]) -> tuple[Places, Fresh]:
        """For each row the place of its key, and whether that place begins anew with this row."""
        places = np.empty(len(keys), np.intp)
        fresh = np.zeros(len(keys), np.bool_)
        held = self._places
        for row, key in enumerate(keys):
            place = held.get(key)
            if place is None:
                fresh[row] = True
                place = held.popitem(last=False)[1] if len(held) >= self._most else len(held)
                held[key] = place
            else:
                held.move_to_end(key)
            places[row] = place
        self._make_room()
        self._seen[places] = np.arange(
            self._rows + 1, self._rows + 1 + len(keys)
        )  # of several the last stays
        self._rows += len(keys)
        return places, fresh

    def _make_room(self) -> None:
        have = len(self._seen)
        missing = len(self._places) - have
        if missing > 0:
            more = max(missing, min(have, self._most - have))
            self._seen = _longer(self._seen, more)
            self._arrays = {name: _longer(array, more) for name, array in self._arrays.items()}

    def dump(self) -> list[Buffer]:
        """Everything, the longest silent key first; equal tables give equal bytes."""
        places = np.fromiter(self._places.values(), np.intp, len(self._places))
        arrays = [self._seen, *self._arrays.values()]
        head = msgspec.msgpack.encode((self._rows, list(self._places)))
        return [head, *(_raw(array[places]) for array in arrays)]

    def load(
        self, dumped: Sequence[Buffer], columns: Columns, keep: Keep
    ) -> tuple[Places, dict[str, NDArray[Any]]]:
        """Take places for the keys of a dump for which `keep` holds; those seen last where there is no room.

        Gives the places and, by name, what the dump has for them (`columns` says how it was stored): the caller
        writes it into the arrays.
        """
        rows, keys = msgspec.msgpack.decode(dumped[0], type=tuple[int, list[str]])
        kept = np.array([number for number, key in enumerate(keys) if keep(key)], np.intp)[-self._most :]
        seen = np.frombuffer(dumped[1], "<i8")[kept]
        rows = max(self._rows, rows)
        places, _ = self.take([keys[number] for number in kept])
        self._seen[places], self._rows = seen, rows
        self._arrange(sorted(self._places, key=lambda key: (int(self._seen[self._places[key]]), key)))
        stored: dict[str, NDArray[Any]] = {}
        for (name, (shape, dtype)), raw in zip(columns.items(), dumped[2:], strict=True):
            array = np.frombuffer(raw, _little(dtype)).reshape(len(keys), *shape)
            stored[name] = array if len(kept) == len(keys) else array[kept]
        return places, stored

    def _arrange(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._places.move_to_end(key)


def _longer(array: NDArray[Any], more: int) -> NDArray[Any]:
    return np.concatenate([array, np.zeros((more, *array.shape[1:]), array.dtype)])


def _little(dtype: DTypeLike) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder("<")


def _raw(array: NDArray[Any]) -> memoryview:
    return array.astype(_little(array.dtype), copy=False).reshape(-1).view(np.uint8).data
