"""The state of many keys: arrays with one slot per key, a limit on their number, and serialization."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

import msgspec
import numpy as np
from numpy.typing import DTypeLike, NDArray

from anomaly.detector import AnyArray, AnyDType, Keep, StateError
from anomaly.keyed_state.container import Buffer, refusing
from anomaly.keyed_state.indexed_keys import SlotsByNumber, first_rows_of_renewed
from anomaly.keyed_state.reserved_array import ReservedArray

Slots = NDArray[np.intp]
Fresh = NDArray[np.bool_]
Arrays = Mapping[str, AnyArray]
Columns = Mapping[str, tuple[tuple[int, ...], DTypeLike]]


# Keys are str in annotations, but the key field of an event may have another type.
Keys = list[Any]
_HEAD = tuple[int, list[str | int | float | None], bytes]
# A limit that is never reached; the sum of two such numbers does not overflow.
_MOST_ROWS = 2**62


class Table:
    """At most `most` keys, and the arrays with their states.

    A new key in a full table replaces the key that has been silent longest. This depends on the order of rows alone,
    so every run evicts the same keys. `columns` maps the name of each array to its shape for one key and its type.
    The caller clears a slot where `take` reports it as fresh.
    """

    def __init__(self, most: int, columns: Columns) -> None:
        if most < 1:
            raise ValueError(f"max_keys is {most} (expected at least 1)")
        self._most = most
        self._places: dict[str, int] = {}
        self._keys: list[str] = []
        self._vacant: list[int] = []  # slots of forgotten keys
        self._rows = 0
        self._silent: Iterator[tuple[int, int]] = iter(())
        self._by_number: SlotsByNumber | None = SlotsByNumber()  # None once a slot was reused by another key
        # These attributes keep their names: they are part of stored pickles of river models.
        self._rooms = {name: ReservedArray(most, shape, dtype) for name, (shape, dtype) in columns.items()}
        self._room_of_seen = ReservedArray(most, (), np.int64)
        self._resize(0)

    def __len__(self) -> int:
        return len(self._places)

    def __getstate__(self) -> dict[str, object]:
        """Return the attributes without array views and without the map of key numbers."""
        left_out = ("arrays", "_seen", "_by_number")
        return {name: value for name, value in vars(self).items() if name not in left_out}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._by_number = SlotsByNumber() if len(self._keys) < self._most else None
        self._resize(len(self._keys))

    def __getitem__(self, name: str) -> AnyArray:
        """Return an array by name, indexed by slot; its length grows as keys are added."""
        return self.arrays[name]

    def replace(self, arrays: Arrays) -> None:
        """Replace the arrays by others with the same slots."""
        self._rooms = {
            name: ReservedArray(self._most, array.shape[1:], array.dtype) for name, array in arrays.items()
        }
        self._resize(len(self._keys))
        for name, array in arrays.items():
            self.arrays[name][:] = array

    @property
    def bytes_per_key(self) -> int:
        """Memory of the arrays for one key in bytes, without its name (about 150 bytes)."""
        return sum(array.row_bytes for array in (self._room_of_seen, *self._rooms.values()))

    def find(self, keys: Sequence[str]) -> Slots:
        """Return the slot of each key, -1 for unknown keys."""
        return np.fromiter(map(self._places.get, keys, repeat(-1)), np.intp, len(keys))

    def copied(self, slots: Slots) -> Arrays:
        """Return copies of the states in these slots, zeros where a slot is -1."""
        known = slots >= 0
        copies = {
            name: np.zeros((len(slots), *array.shape[1:]), array.dtype) for name, array in self.arrays.items()
        }
        for name, array in copies.items():
            array[known] = self.arrays[name][slots[known]]
        return copies

    def take(self, keys: Sequence[str]) -> tuple[Slots, Fresh]:
        """Return the slot of the key of each row, added if necessary, and whether the state starts with that row."""
        slots, unknown = self._known(keys)
        fresh = np.zeros(len(keys), np.bool_)
        fresh[first_rows_of_renewed(keys)] = True
        new = unknown[slots[unknown] < 0]
        if len(new):
            names = [keys[row] for row in new.tolist()]
            if len(self._places) + len(set(names)) > self._most:
                self._take_evicting(keys, slots, fresh)
                return slots, fresh
            for row, key in zip(new.tolist(), names, strict=True):
                slot = self._places.get(key, -1)
                if slot < 0:
                    slot, fresh[row] = self._put(key), True
                slots[row] = slot
            self._resize(len(self._keys))
        if self._by_number is not None:
            self._by_number.learn(keys, unknown, slots[unknown])
        # If a key has several rows, the last assignment counts.
        self._seen[slots] = np.arange(self._rows + 1, self._rows + 1 + len(keys))
        self._rows += len(keys)
        return slots, fresh

    def _known(self, keys: Sequence[str]) -> tuple[Slots, Slots]:
        """Return the slots of the keys, and the rows whose slot was not known by the number of the key."""
        if self._by_number is None:
            return self.find(keys), np.arange(len(keys))
        slots = self._by_number.find(keys)
        unknown = np.flatnonzero(slots < 0)
        slots[unknown] = self.find([keys[row] for row in unknown.tolist()])
        return slots, unknown

    def expect(self, keys: Sequence[str]) -> None:
        """Record the slots of these keys under their numbers."""
        if self._by_number is not None:
            slots, unknown = self._known(keys)
            self._by_number.learn(keys, unknown, slots[unknown])

    def _take_evicting(self, keys: Sequence[str], slots: Slots, fresh: Fresh) -> None:
        """Take rows one by one, because the key to evict depends on the rows before."""
        self._by_number = None
        for row, key in enumerate(keys):
            slot = self._places.get(key, -1)
            if slot < 0:
                fresh[row] = True
                slot = self._reserve(key)
            slots[row] = slot
            self._rows += 1
            self._seen[slot] = self._rows

    def _put(self, key: str) -> int:
        """Assign a free slot to a new key; the caller has to call `_resize`."""
        if self._vacant:
            slot = self._vacant.pop()
            self._keys[slot] = key
        else:
            slot = len(self._keys)
            self._keys.append(key)
        self._places[key] = slot
        return slot

    def forget(self, keys: Iterable[str]) -> list[int]:
        """Forget keys and return their slots, which are free from then on; unknown keys are ignored.

        A forgotten key must be given another number by the owner of the numbers.
        """
        slots = [slot for key in keys if (slot := self._places.pop(key, -1)) >= 0]
        self._vacant += slots
        self._seen[slots] = 0  # rows are numbered from 1
        return slots

    def _reserve(self, key: str) -> int:
        if len(self._places) < self._most:
            slot = self._put(key)
            self._resize(len(self._keys))
            return slot
        slot = self._longest_silent()
        del self._places[self._keys[slot]]
        self._keys[slot], self._places[key] = key, slot
        return slot

    def _longest_silent(self) -> int:
        """Return the slot whose last row is the oldest.

        The order is computed for many calls at once; slots that were used since are skipped.
        """
        while True:
            for slot, seen in self._silent:
                if self._seen[slot] == seen:
                    return slot
            order = self.slots()
            self._silent = iter([(slot, int(self._seen[slot])) for slot in order])

    def slots(self) -> list[int]:
        """Return the slots of all keys, least recently seen first."""
        slots: list[int] = self.order().tolist()
        return slots

    def order(self) -> Slots:
        """Return the slots of all keys as an array, least recently seen first, then by name.

        After a merge of two snapshots, two keys may have the same last row.
        """
        order = np.argsort(self._seen, kind="stable")
        order = order[len(self._vacant) :]  # vacant slots have the lowest row number
        seen = self._seen[order]
        if (seen[1:] == seen[:-1]).any():
            names = self._keys
            order = np.array(sorted(order.tolist(), key=lambda at: (self._seen[at], names[at])), np.intp)
        return order

    def _resize(self, keys: int) -> None:
        # The number of the last row of each slot.
        self._seen: NDArray[np.int64] = self._room_of_seen.rows(keys)
        self.arrays: Arrays = {name: array.rows(keys) for name, array in self._rooms.items()}

    def dump(self) -> tuple[Buffer, Arrays]:
        """Return the serialized keys and the arrays, least recently seen first; equal tables give equal bytes."""
        order = self.order()
        return self.head(order), {name: array[order] for name, array in self.arrays.items()}

    def head(self, order: Slots) -> Buffer:
        """Serialize the keys in this order."""
        keys = [self._keys[slot] for slot in order.tolist()]
        return msgspec.msgpack.encode((self._rows, keys, to_bytes(self._seen[order])))

    def load(self, head: Buffer, keep: Keep, rows: int) -> tuple[Slots, Slots]:
        """Add the keys of a dump for which `keep` is true; in a full table the most recently seen keys are kept.

        `rows` is the number of rows of the arrays of the dump. Returns the slots of the keys and their rows in these
        arrays, which the caller copies. Raises StateError, without any change, if the number of keys differs.
        """
        kept = self.kept(head, keep, rows)
        total, keys, seen = _decoded(head, rows)
        slots, _ = self.take([keys[number] for number in kept.tolist()])
        self._seen[slots], self._silent = seen[kept], iter(())
        self._rows = max(self._rows, total)
        return slots, kept

    def kept(self, head: Buffer, keep: Keep, rows: int) -> Slots:
        """Return the rows of the arrays of a dump that `load` would take."""
        _, keys, seen = _decoded(head, rows)
        last = {key: number for key, number in zip(keys, seen.tolist(), strict=True) if keep(key)}
        stay = self._seen_last(last)
        return np.array([number for number, key in enumerate(keys) if key in last and key in stay], np.intp)

    def _seen_last(self, more: Mapping[str, int]) -> Collection[str]:
        """Return the keys that remain when keys with these last rows are added."""
        if len(self._places) + len(more) <= self._most:
            return more
        last = {key: int(self._seen[slot]) for key, slot in self._places.items()} | dict(more)
        return set(sorted(last, key=lambda key: (last[key], key))[-self._most :])


def keys_in(head: Buffer) -> int:
    """Return the number of keys of a dump. Raises StateError."""
    with refusing():
        return len(msgspec.msgpack.decode(head, type=_HEAD)[1])


def distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of features. Raises StateError if one occurs twice."""
    if len(set(names)) < len(names):
        raise StateError("a feature occurs twice")
    return names


def _decoded(head: Buffer, expected: int) -> tuple[int, Keys, NDArray[np.int64]]:
    """Return the number of rows, the keys, and the last row of each key. Raises StateError if inconsistent."""
    with refusing():
        rows, keys, raw = msgspec.msgpack.decode(head, type=_HEAD)
    seen = from_bytes(raw, (len(keys),), np.int64)
    if len(keys) != expected or len(set(keys)) < len(keys):
        raise StateError(f"the number of distinct keys is not {expected}")
    if not 0 <= rows < _MOST_ROWS or (len(keys) and not 0 < seen.min() <= seen.max() <= rows):
        raise StateError(f"the last rows of keys are not within {rows} rows")
    return rows, keys, seen


def to_bytes(array: AnyArray) -> memoryview:
    """Return the elements of an array in little-endian byte order."""
    return array.astype(little(array.dtype), copy=False).reshape(-1).view(np.uint8).data


def from_bytes(raw: Buffer, shape: tuple[int, ...], dtype: DTypeLike) -> AnyArray:
    """Return a read-only array on `raw`. Raises StateError if its size does not match the shape."""
    kind = little(dtype)
    if len(raw) != kind.itemsize * math.prod(shape):
        raise StateError(f"an array of {len(raw)} bytes does not have the shape {shape}")
    return np.frombuffer(raw, kind).reshape(shape)


def little(dtype: DTypeLike) -> AnyDType:
    """Return the type in little-endian byte order."""
    return np.dtype(dtype).newbyteorder("<")
