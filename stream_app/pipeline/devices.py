"""Devices by number: each key is looked up once a batch, and what is remembered of it lies in arrays."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_app.pipeline import devices_kernel as kernel
from stream_app.record import IntVector

_pack = msgspec.msgpack.Encoder().encode

_FIRST_ROOM = 16
_LIST = b"\xdd"  # in MessagePack: then how many, in four bytes


class Devices:
    """Numbers of keys, counted from 0 in the order in which they came.

    A key is what MessagePack makes of it: text, a whole number or None, whatever an event's key may be. Keys that
    look alike there are one key.
    """

    def __init__(self) -> None:
        self._count = self._used = 0
        self._slots = _empty(_FIRST_ROOM)
        self._names = np.zeros(0, dtype=np.uint8)

    def __len__(self) -> int:
        return self._count

    def numbers(self, keys: Iterable[Any]) -> IntVector:
        """The number of each key, shape (n,); new keys get new ones."""
        rows = keys if isinstance(keys, list) else list(keys)
        data = np.frombuffer(_pack(rows), np.uint8)
        begins, marks, found = (np.empty(len(rows) + more, np.int64) for more in (1, 0, 0))
        kernel.begins_and_marks(data, begins, marks)
        if new := kernel.find(data, begins, marks, self._slots, self._names, found):
            self._reach(self._count + new, self._used + len(data))
            self._used = kernel.add(
                data, begins, marks, self._slots, self._names, self._count, self._used, found
            )
            self._count = max(self._count, int(found.max()) + 1)
        return found

    def _reach(self, count: int, used: int) -> None:
        """Room for so many keys, and so many bytes of them."""
        self._names = reaching(self._names, used, 0)
        if 2 * count > len(self._slots):
            slots = _empty(1 << (2 * count - 1).bit_length())
            kernel.move(self._slots, slots)
            self._slots = slots

    @property
    def keys(self) -> list[Any]:
        """The keys in the order of their numbers."""
        packed = _LIST + self._count.to_bytes(4, "big") + self._names[: self._used].tobytes()
        keys: list[Any] = msgspec.msgpack.decode(packed)
        return keys


def _empty(slots: int) -> IntVector:
    return np.full((slots, kernel.SLOT), (0, -1, 0, 0), dtype=np.int64)


def reaching(array: NDArray[Any], count: int, fill: Any) -> NDArray[Any]:
    """The array, longer if it has fewer than `count` places; new ones hold `fill`. It doubles, so that it is rare."""
    have = len(array)
    if count <= have:
        return array
    longer = np.zeros((max(count, 2 * have, _FIRST_ROOM), *array.shape[1:]), dtype=array.dtype)
    longer[:have] = array
    if fill != 0:  # zeros take no memory before they are written over
        longer[have:] = fill
    return longer
