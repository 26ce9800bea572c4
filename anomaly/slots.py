"""Where the state of each key is: a place in a table that has a bounded number of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.intp]
Fresh = NDArray[np.bool_]


class Slots:
    """Keys and their places in a table, the longest silent first; at most `most` of them.

    A key that finds no room takes the place of the one that was silent for longest: that depends on the order of
    the rows alone, so every run evicts the same keys.
    """

    def __init__(self, most: int) -> None:
        if most < 1:
            raise ValueError(f"max_keys = {most}: at least one key must have a place")
        self._most = most
        self._places: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        """The keys, the longest silent first."""
        return iter(self._places)

    def find(self, key: str) -> int | None:
        """The place of a key that is held."""
        return self._places.get(key)

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
        return places, fresh

    def arrange(self, keys: Iterable[str]) -> None:
        """Put keys that are held into this order of silence, the longest silent first."""
        for key in keys:
            self._places.move_to_end(key)
