"""The state of many keys: arrays with one place for each key, a bound on their number, and their way to bytes."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

import msgspec
import numpy as np
from numpy.typing import DTypeLike, NDArray

from anomaly.detector import Keep, StateError
from anomaly.keyed_state.container import Buffer, refusing
from anomaly.keyed_state.indexed_keys import PlacesByNumber, first_rows_of_renewed
from anomaly.keyed_state.reserved_array import ReservedArray

Places = NDArray[np.intp]
Fresh = NDArray[np.bool_]
Arrays = Mapping[str, NDArray[Any]]
Columns = Mapping[str, tuple[tuple[int, ...], DTypeLike]]


# A key is text, or whatever else an event's key may be.
_HEAD = tuple[int, list[str | int | float | None], bytes]
# More rows than there can ever have been; a sum of two such numbers cannot overflow.
_MOST_ROWS = 2**62


class Table:
    """Keys, and the arrays that hold their states; at most `most` keys.

    A key that finds no room takes the place of the one that was silent for longest: that depends on the order of
    the rows alone, so every run evicts the same keys. `columns` names each array, its shape for one key and its
    type. Whoever writes the arrays clears a place where `take` says that it begins anew.
    """

    def __init__(self, most: int, columns: Columns) -> None:
        if most < 1:
            raise ValueError(f"max_keys = {most}: at least one key must have a place")
        self._most = most
        self._places: dict[str, int] = {}
        self._keys: list[str] = []
        self._vacant: list[int] = []  # places of keys that were forgotten
        self._rows = 0
        self._silent: Iterator[tuple[int, int]] = iter(())
        self._by_number: PlacesByNumber | None = PlacesByNumber()  # None once a place had two keys
        self._rooms = {name: ReservedArray(most, shape, dtype) for name, (shape, dtype) in columns.items()}
        self._room_of_seen = ReservedArray(most, (), np.int64)
        self._reach(0)

    def __len__(self) -> int:
        return len(self._places)

    def __getstate__(self) -> dict[str, Any]:
        """Without the views of what the rooms hold, and without what is known of somebody's numbers."""
        left_out = ("arrays", "_seen", "_by_number")
        return {name: value for name, value in vars(self).items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._by_number = PlacesByNumber() if len(self._keys) < self._most else None
        self._reach(len(self._keys))

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The array of that name, by place; longer when keys are added."""
        return self.arrays[name]

    def replace(self, arrays: Arrays) -> None:
        """Other arrays with the same places."""
        self._rooms = {
            name: ReservedArray(self._most, array.shape[1:], array.dtype) for name, array in arrays.items()
        }
        self._reach(len(self._keys))
        for name, array in arrays.items():
            self.arrays[name][:] = array

    @property
    def bytes_per_key(self) -> int:
        """What the arrays take for one key; its name comes on top, about 150 bytes."""
        return sum(room.row_bytes for room in (self._room_of_seen, *self._rooms.values()))

    def find(self, keys: Sequence[str]) -> Places:
        """The place of each key, -1 where it is not held."""
        return np.fromiter(map(self._places.get, keys, repeat(-1)), np.intp, len(keys))

    def copied(self, places: Places) -> Arrays:
        """Copies of what lies at these places, zeros where one is -1."""
        held = places >= 0
        made = {
            name: np.zeros((len(places), *array.shape[1:]), array.dtype)
            for name, array in self.arrays.items()
        }
        for name, array in made.items():
            array[held] = self.arrays[name][places[held]]
        return made

    def take(self, keys: Sequence[str]) -> tuple[Places, Fresh]:
        """For each row the place of its key, and whether that place begins anew with this row."""
        places, unknown = self._known(keys)
        fresh = np.zeros(len(keys), np.bool_)
        fresh[first_rows_of_renewed(keys)] = True
        new = unknown[places[unknown] < 0]
        if len(new):
            names = [keys[row] for row in new.tolist()]
            if len(self._places) + len(set(names)) > self._most:
                self._take_evicting(keys, places, fresh)
                return places, fresh
            for row, key in zip(new.tolist(), names, strict=True):
                place = self._places.get(key, -1)
                if place < 0:
                    place, fresh[row] = self._put(key), True
                places[row] = place
            self._reach(len(self._keys))
        if self._by_number is not None:
            self._by_number.learn(keys, unknown, places[unknown])
        # Of several rows of a key the last stays.
        self._seen[places] = np.arange(self._rows + 1, self._rows + 1 + len(keys))
        self._rows += len(keys)
        return places, fresh

    def _known(self, keys: Sequence[str]) -> tuple[Places, Places]:
        """`find`, and the rows whose keys had to be looked up, their number not being known."""
        if self._by_number is None:
            return self.find(keys), np.arange(len(keys))
        places = self._by_number.find(keys)
        unknown = np.flatnonzero(places < 0)
        places[unknown] = self.find([keys[row] for row in unknown.tolist()])
        return places, unknown

    def expect(self, keys: Sequence[str]) -> None:
        """Rows of these keys, with these numbers, will come."""
        if self._by_number is not None:
            places, unknown = self._known(keys)
            self._by_number.learn(keys, unknown, places[unknown])

    def _take_evicting(self, keys: Sequence[str], places: Places, fresh: Fresh) -> None:
        """Row by row: who is evicted depends on the rows before."""
        self._by_number = None
        for row, key in enumerate(keys):
            place = self._places.get(key, -1)
            if place < 0:
                fresh[row] = True
                place = self._reserve(key)
            places[row] = place
            self._rows += 1
            self._seen[place] = self._rows

    def _put(self, key: str) -> int:
        """Give a new key a place, of which there is one; `_reach` has to follow."""
        if self._vacant:
            place = self._vacant.pop()
            self._keys[place] = key
        else:
            place = len(self._keys)
            self._keys.append(key)
        self._places[key] = place
        return place

    def forget(self, keys: Iterable[str]) -> list[int]:
        """Forget those of these keys that are held; returns their places, which others may take from now on.

        Whoever gives keys numbers gives a key that was forgotten another one.
        """
        places = [place for key in keys if (place := self._places.pop(key, -1)) >= 0]
        self._vacant += places
        self._seen[places] = 0  # no row has this number
        return places

    def _reserve(self, key: str) -> int:
        if len(self._places) < self._most:
            place = self._put(key)
            self._reach(len(self._keys))
            return place
        place = self._longest_silent()
        del self._places[self._keys[place]]
        self._keys[place], self._places[key] = key, place
        return place

    def _longest_silent(self) -> int:
        """The place whose last row is the oldest. The order is sorted out once for many: who spoke since goes by."""
        while True:
            for place, seen in self._silent:
                if self._seen[place] == seen:
                    return place
            order = self.places()
            self._silent = iter([(place, int(self._seen[place])) for place in order])

    def places(self) -> list[int]:
        """Where the keys are, the longest silent first."""
        places: list[int] = self.order().tolist()
        return places

    def order(self) -> Places:
        """`places` as an array. Keys of two parents may have spoken in the same row: those go by name."""
        order = np.argsort(self._seen, kind="stable")
        order = order[len(self._vacant) :]  # their rows have the least number
        seen = self._seen[order]
        if (seen[1:] == seen[:-1]).any():
            names = self._keys
            order = np.array(sorted(order.tolist(), key=lambda at: (self._seen[at], names[at])), np.intp)
        return order

    def _reach(self, keys: int) -> None:
        self._seen: NDArray[np.int64] = self._room_of_seen.rows(
            keys
        )  # the number of the last row of each place
        self.arrays: Arrays = {name: room.rows(keys) for name, room in self._rooms.items()}

    def dump(self) -> tuple[Buffer, Arrays]:
        """Keys, and their arrays, the longest silent key first; equal tables give equal bytes."""
        order = self.order()
        return self.head(order), {name: array[order] for name, array in self.arrays.items()}

    def head(self, order: Places) -> Buffer:
        """What a dump says of the keys."""
        keys = [self._keys[place] for place in order.tolist()]
        return msgspec.msgpack.encode((self._rows, keys, to_bytes(self._seen[order])))

    def load(self, head: Buffer, keep: Keep, rows: int) -> tuple[Places, Places]:
        """Take places for the keys of a dump for which `keep` holds. Where there is no room, those seen last stay.

        `rows` is how many rows the dump's arrays have. Gives the keys' places, and their rows in these arrays: the
        caller copies them. Raises StateError, and takes nothing, when the head is not of so many rows.
        """
        kept = self.kept(head, keep, rows)
        total, keys, seen = _decoded(head, rows)
        places, _ = self.take([keys[number] for number in kept.tolist()])
        self._seen[places], self._silent = seen[kept], iter(())
        self._rows = max(self._rows, total)
        return places, kept

    def kept(self, head: Buffer, keep: Keep, rows: int) -> Places:
        """Which rows of a dump's arrays `load` would take."""
        _, keys, seen = _decoded(head, rows)
        last = {key: number for key, number in zip(keys, seen.tolist(), strict=True) if keep(key)}
        stay = self._seen_last(last)
        return np.array([number for number, key in enumerate(keys) if key in last and key in stay], np.intp)

    def _seen_last(self, more: Mapping[str, int]) -> Collection[str]:
        """Who stays when these keys come, last seen at these rows."""
        if len(self._places) + len(more) <= self._most:
            return more
        last = {key: int(self._seen[place]) for key, place in self._places.items()} | dict(more)
        return set(sorted(last, key=lambda key: (last[key], key))[-self._most :])


def keys_in(head: Buffer) -> int:
    """How many keys a dump has. Raises StateError."""
    with refusing():
        return len(msgspec.msgpack.decode(head, type=_HEAD)[1])


def distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of features. Raises StateError when one is there twice."""
    if len(set(names)) < len(names):
        raise StateError("a feature is there twice")
    return names


def _decoded(head: Buffer, expected: int) -> tuple[int, list[Any], NDArray[np.int64]]:
    """Number of rows, keys, and each key's last row. Raises StateError when they contradict each other."""
    with refusing():
        rows, keys, raw = msgspec.msgpack.decode(head, type=_HEAD)
    seen = from_bytes(raw, (len(keys),), np.int64)
    if len(keys) != expected or len(set(keys)) < len(keys):
        raise StateError(f"there are not {expected} different keys")
    if not 0 <= rows < _MOST_ROWS or (len(keys) and not 0 < seen.min() <= seen.max() <= rows):
        raise StateError(f"the last rows of keys are not among {rows} rows")
    return rows, keys, seen


def to_bytes(array: NDArray[Any]) -> memoryview:
    """An array's numbers, little-endian whatever the machine."""
    return array.astype(little(array.dtype), copy=False).reshape(-1).view(np.uint8).data


def from_bytes(raw: Buffer, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """The array again: a view of `raw`, not to be written to. Raises StateError when it is not of this shape."""
    kind = little(dtype)
    if len(raw) != kind.itemsize * math.prod(shape):
        raise StateError(f"an array of {len(raw)} bytes has not the shape {shape}")
    return np.frombuffer(raw, kind).reshape(shape)


def little(dtype: DTypeLike) -> np.dtype[Any]:
    """The type as it travels."""
    return np.dtype(dtype).newbyteorder("<")
