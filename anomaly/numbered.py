"""Keys that are known by a number too: whoever has looked a key up once need not look it up again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.intp]


class Numbered(list[str]):
    """The keys of rows, and in `numbers` (n,) a whole number ≥ 0 for each, which stands for that key alone.

    `of` is whose numbers they are: another's are others. A detector may pass them over: this is a list of keys.
    """

    def __init__(self, keys: Iterable[str], numbers: NDArray[np.int64], of: object) -> None:
        super().__init__(keys)
        self.numbers, self.of = numbers, of

    def take(self, rows: NDArray[np.intp]) -> Numbered:
        """Those of some rows."""
        return Numbered([self[row] for row in rows.tolist()], self.numbers[rows], self.of)


@runtime_checkable
class Expecting(Protocol):
    """A detector that goes by numbers."""

    def expect(self, keys: Numbered) -> None:
        """Rows of these keys will come with these numbers: look up now those that are held."""
        ...


class PlacesByNumber:
    """Where keys are held, by their numbers, as far as `learn` was told."""

    def __init__(self) -> None:
        self._of: object = None
        self._places: Places = np.zeros(0, np.intp)

    def find(self, keys: Sequence[Any]) -> Places:
        """The place of each key, -1 where it was not told, as of all keys without a number."""
        if not isinstance(keys, Numbered):
            return np.full(len(keys), -1, np.intp)
        if keys.of is not self._of:
            self._of, self._places = keys.of, np.zeros(0, np.intp)
        more = int(keys.numbers.max(initial=-1)) + 1 - len(self._places)
        if more > 0:
            room = np.full(max(more, len(self._places)), -1, np.intp)
            self._places = np.concatenate([self._places, room])
        return self._places[keys.numbers]

    def learn(self, keys: Sequence[Any], rows: Places, places: Places) -> None:
        """These rows' keys, which `find` was asked for last, are held at these places for ever, or not yet (-1)."""
        if isinstance(keys, Numbered):
            self._places[keys.numbers[rows]] = places
