"""Devices by number: each key is looked up once a batch, and what is remembered of it lies in arrays.

A device that was silent for longer than a given time is forgotten: its next record gets another number, under which
nothing is known. Time is the arrival of the shard's records, as a running maximum (`ShardState`), so the same records
in the same order forget the same devices, however they are split into batches and whenever memory is given back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from anomaly.kernels.siphash import new_seed
from stream_app.model.record import IntVector
from stream_app.pipeline.state import key_index_kernel as kernel
from stream_app.pipeline.state.key_index_kernel import FORGOTTEN, UNKNOWN

_pack = msgspec.msgpack.Encoder().encode

_FIRST_ROOM = 16
_LIST = b"\xdd"  # in MessagePack: then how many, in four bytes
_NO_ROWS: IntVector = np.zeros(0, dtype=np.int64)


class KeyLookup(NamedTuple):
    """The number of each row's device, and the rows with which a device that was forgotten begins anew."""

    numbers: IntVector
    renewed: IntVector


class KeyIndex:
    """Numbers of keys, counted from 0 in the order in which they came.

    A key is what MessagePack makes of it: text, a whole number or None, whatever an event's key may be. Keys that
    look alike there are one key. `forget_after` is in milliseconds, 0 for never.
    """

    def __init__(self, forget_after: int = 0) -> None:
        self._forget_after = forget_after
        self._counts = np.zeros(4, dtype=np.int64)  # numbers, slots, bytes of names, devices forgotten
        self._seed = new_seed()
        self._slots = _empty(_FIRST_ROOM)
        self._names = np.zeros(0, dtype=np.uint8)
        self._arrived = np.zeros(0, dtype=np.int64)
        self._some_unknown = False

    def __len__(self) -> int:
        """How many numbers were given, those of forgotten devices included."""
        return int(self._counts[0])

    @property
    def forgotten(self) -> int:
        """How many devices were forgotten."""
        return int(self._counts[3])

    @property
    def arrived(self) -> IntVector:
        """By number, when the device's last record arrived (ms), or UNKNOWN, or FORGOTTEN."""
        return self._arrived[: len(self)]

    def numbers(self, keys: Iterable[Any]) -> IntVector:
        """The number of each key, shape (n,); new keys get new ones, whose arrival is not known."""
        rows = keys if isinstance(keys, list) else list(keys)
        self._some_unknown = True
        return self.arrive(rows, np.full(len(rows), UNKNOWN, dtype=np.int64)).numbers

    def arrive(self, keys: list[Any], moments: IntVector) -> KeyLookup:
        """Take records of these keys, shape (n,), that arrive at `moments`: milliseconds, never falling.

        Between the first and the last no more time than `forget_after` may pass.
        """
        data = np.frombuffer(_pack(keys), np.uint8)
        begins, marks, found = (np.empty(len(keys) + more, np.int64) for more in (1, 0, 0))
        kernel.begins_and_marks(data, begins, marks, self._seed)
        unknown = kernel.find(data, begins, marks, self._slots, self._names, found)
        if not unknown and self._all_remembered(found, moments):
            self._arrived[found] = moments  # of several rows of a device the last stays
            return KeyLookup(found, _NO_ROWS)
        self._reach(unknown, len(keys), len(data))
        renewed = np.empty(len(keys), np.int64)
        state = self._slots, self._names, self._arrived, moments, self._forget_after, self._counts
        many = kernel.add(data, begins, marks, *state, found, renewed)
        return KeyLookup(found, renewed[:many].copy())

    def _all_remembered(self, numbers: IntVector, moments: IntVector) -> bool:
        """Whether surely none of these devices is forgotten when their records arrive."""
        if not len(numbers):
            return True
        earliest = int(self._arrived[numbers].min())
        return earliest >= 0 and not 0 < self._forget_after < int(moments[-1]) - earliest

    def _reach(self, new: int, rows: int, used: int) -> None:
        """Room for so many more keys, numbers, and bytes of names."""
        count, keys, names, _ = self._counts.tolist()
        self._names = ensure_capacity(self._names, names + used, 0)
        self._arrived = ensure_capacity(self._arrived, count + rows, FORGOTTEN)
        if 2 * (keys + new) > len(self._slots):
            slots = _empty(1 << (2 * (keys + new) - 1).bit_length())
            kernel.move(self._slots, slots)
            self._slots = slots

    def note_unknown(self, moment: int) -> None:
        """Take the devices of which no arrival is known for ones that arrived at `moment`."""
        if self._some_unknown:
            self.arrived[self.arrived == UNKNOWN] = moment
            self._some_unknown = False

    def set_arrived(self, numbers: IntVector, moments: IntVector) -> None:
        """Take over when these devices' last records arrived, as `arrived` had it."""
        self._arrived[numbers] = moments

    def silent(self, moment: int) -> IntVector:
        """The numbers of devices that are forgotten by `moment`, and were not forgotten before."""
        if not self._forget_after:
            return _NO_ROWS
        arrived = self.arrived
        return np.flatnonzero((arrived >= 0) & (arrived < moment - self._forget_after))

    def forget(self, numbers: IntVector) -> None:
        """Their next records begin anew."""
        self._arrived[numbers] = FORGOTTEN
        self._counts[3] += len(numbers)

    def remembered(self) -> IntVector:
        """The numbers of devices that are not forgotten."""
        return np.flatnonzero(self.arrived != FORGOTTEN)

    @property
    def keys(self) -> list[Any]:
        """The keys in the order of their numbers."""
        count, _, used, _ = self._counts.tolist()
        packed = _LIST + count.to_bytes(4, "big") + self._names[:used].tobytes()
        keys: list[Any] = msgspec.msgpack.decode(packed)
        return keys


def _empty(slots: int) -> IntVector:
    return np.full((slots, kernel.SLOT), (0, -1, 0, 0), dtype=np.int64)


def ensure_capacity(array: NDArray[Any], count: int, fill: Any) -> NDArray[Any]:
    """The array, longer if it has fewer than `count` places; new ones hold `fill`. It doubles, so that it is rare."""
    have = len(array)
    if count <= have:
        return array
    longer = np.zeros((max(count, 2 * have, _FIRST_ROOM), *array.shape[1:]), dtype=array.dtype)
    longer[:have] = array
    if fill != 0:  # zeros take no memory before they are written over
        longer[have:] = fill
    return longer
