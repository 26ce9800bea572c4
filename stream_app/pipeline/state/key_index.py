"""The key index: a slot in arrays for each device key, found with one lookup per batch.

A device that sent nothing for longer than `forget_after` is forgotten: its next record gets a new slot, where nothing
is stored. Time is the running maximum of the shard's arrival times (`ShardState`). The same records in the same order
therefore forget the same devices, regardless of batch boundaries and of when memory is reclaimed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from anomaly.kernels.siphash import new_seed
from stream_app.model.record import IntVector
from stream_app.pipeline.state import key_index_kernel as kernel
from stream_app.pipeline.state.key_index_kernel import FORGOTTEN, UNKNOWN

# The value of an event's key field: text, an integer or None, in fact; detectors declare text.
Key = Any
Scalar = TypeVar("Scalar", bound=np.generic)

_pack = msgspec.msgpack.Encoder().encode

_MIN_CAPACITY = 16
_ARRAY_32 = b"\xdd"  # MessagePack type of an array whose length follows in four bytes
_NO_ROWS: IntVector = np.zeros(0, dtype=np.int64)


class KeyLookup(NamedTuple):
    """The slot of each row's device, and the rows at which a forgotten device got a new slot."""

    slots: IntVector
    renewed: IntVector


class KeyIndex:
    """Slots of device keys, numbered from 0 in the order of the keys' first records.

    Keys are compared by their MessagePack encoding: text, an integer or None. `forget_after` is in milliseconds, 0
    means never.
    """

    def __init__(self, forget_after: int = 0) -> None:
        self._forget_after = forget_after
        self._counts = np.zeros(4, dtype=np.int64)  # slots, table entries, bytes of names, forgotten devices
        self._seed = new_seed()
        self._table = _empty(_MIN_CAPACITY)
        self._names = np.zeros(0, dtype=np.uint8)
        self._last_arrivals = np.zeros(0, dtype=np.int64)
        self._has_unknown = False

    def __len__(self) -> int:
        """The number of slots, including those of forgotten devices."""
        return int(self._counts[0])

    @property
    def forgotten(self) -> int:
        """The number of devices forgotten so far."""
        return int(self._counts[3])

    @property
    def last_arrivals(self) -> IntVector:
        """By slot: the arrival of the device's last record in milliseconds, UNKNOWN, or FORGOTTEN."""
        return self._last_arrivals[: len(self)]

    def slots(self, keys: Iterable[Key]) -> IntVector:
        """Return the slot of each key, shape (n,). New keys get new slots with an UNKNOWN last arrival."""
        rows = keys if isinstance(keys, list) else list(keys)
        self._has_unknown = True
        return self.look_up(rows, np.full(len(rows), UNKNOWN, dtype=np.int64)).slots

    def look_up(self, keys: list[Key], arrivals: IntVector) -> KeyLookup:
        """Look up the keys of arriving records; add unknown keys and update the last arrivals.

        `arrivals` has the arrival of each record in milliseconds, ascending, and spans at most `forget_after`.
        """
        data = np.frombuffer(_pack(keys), np.uint8)
        begins, hashes, found = (np.empty(len(keys) + more, np.int64) for more in (1, 0, 0))
        kernel.begins_and_hashes(data, begins, hashes, self._seed)
        unknown = kernel.find(data, begins, hashes, self._table, self._names, found)
        if not unknown and self._none_expired(found, arrivals):
            self._last_arrivals[found] = arrivals  # the last of several rows of a device wins
            return KeyLookup(found, _NO_ROWS)
        self._reserve(unknown, len(keys), len(data))
        renewed = np.empty(len(keys), np.int64)
        state = self._table, self._names, self._last_arrivals, arrivals, self._forget_after, self._counts
        count = kernel.add(data, begins, hashes, *state, found, renewed)
        return KeyLookup(found, renewed[:count].copy())

    def _none_expired(self, slots: IntVector, arrivals: IntVector) -> bool:
        """Return True only if none of these devices has expired before its next record."""
        if not len(slots):
            return True
        earliest = int(self._last_arrivals[slots].min())
        return earliest >= 0 and not 0 < self._forget_after < int(arrivals[-1]) - earliest

    def _reserve(self, new_keys: int, new_slots: int, name_bytes: int) -> None:
        """Reserve capacity for additional keys, slots and bytes of names."""
        count, keys, names, _ = self._counts.tolist()
        self._names = ensure_capacity(self._names, names + name_bytes, 0)
        self._last_arrivals = ensure_capacity(self._last_arrivals, count + new_slots, FORGOTTEN)
        if 2 * (keys + new_keys) > len(self._table):
            table = _empty(1 << (2 * (keys + new_keys) - 1).bit_length())
            kernel.move(self._table, table)
            self._table = table

    def fill_unknown_arrivals(self, arrival: int) -> None:
        """Set the last arrival of all devices for which it is UNKNOWN."""
        if self._has_unknown:
            self.last_arrivals[self.last_arrivals == UNKNOWN] = arrival
            self._has_unknown = False

    def set_last_arrivals(self, slots: IntVector, arrivals: IntVector) -> None:
        """Restore the last arrivals of devices, as read from `last_arrivals`."""
        self._last_arrivals[slots] = arrivals

    def expired_slots(self, now: int) -> IntVector:
        """Return the slots of devices that have expired by `now` (milliseconds) and are not yet forgotten."""
        if not self._forget_after:
            return _NO_ROWS
        arrivals = self.last_arrivals
        return np.flatnonzero((arrivals >= 0) & (arrivals < now - self._forget_after))

    def forget(self, slots: IntVector) -> None:
        """Mark devices as forgotten: their next records get new slots."""
        self._last_arrivals[slots] = FORGOTTEN
        self._counts[3] += len(slots)

    def live_slots(self) -> IntVector:
        """Return the slots of devices that are not forgotten, in ascending order."""
        return np.flatnonzero(self.last_arrivals != FORGOTTEN)

    @property
    def keys(self) -> list[Key]:
        """The key of each slot."""
        count, _, used, _ = self._counts.tolist()
        packed = _ARRAY_32 + count.to_bytes(4, "big") + self._names[:used].tobytes()
        keys: list[Key] = msgspec.msgpack.decode(packed)
        return keys


def _empty(entries: int) -> IntVector:
    return np.full((entries, kernel.ENTRY), (0, -1, 0, 0), dtype=np.int64)


def ensure_capacity(array: NDArray[Scalar], count: int, fill: object) -> NDArray[Scalar]:
    """Return the array, or a longer copy if its length is below `count`; new items hold `fill`.

    The length at least doubles, so that copies are rare.
    """
    have = len(array)
    if count <= have:
        return array
    longer = np.zeros((max(count, 2 * have, _MIN_CAPACITY), *array.shape[1:]), dtype=array.dtype)
    longer[:have] = array
    if fill != 0:  # untouched zero pages take no memory
        longer[have:] = fill
    return longer
