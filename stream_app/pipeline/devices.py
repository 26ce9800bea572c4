"""Devices by number: each key is looked up once a batch, and what is remembered of it lies in arrays."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.record import IntVector

_FIRST_ROOM = 16


class _Numbers(dict[str, int]):
    """A key that is met for the first time takes the next number."""

    def __missing__(self, key: str) -> int:
        self[key] = number = len(self)
        return number


class Devices:
    """Numbers of keys, counted from 0 in the order in which they came."""

    def __init__(self) -> None:
        self._numbers = _Numbers()

    def __len__(self) -> int:
        return len(self._numbers)

    def numbers(self, keys: Iterable[Any]) -> IntVector:
        """The number of each key, shape (n,); new keys get new ones."""
        return np.array(list(map(self._numbers.__getitem__, keys)), dtype=np.int64)

    @property
    def keys(self) -> list[str]:
        """The keys in the order of their numbers."""
        return list(self._numbers)


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
