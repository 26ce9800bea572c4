"""Keys that are known by a number too: whoever has looked a key up once need not look it up again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.intp]


class Numbered(list[str]):
    """The keys of rows, and in `numbers` (n,) a whole number ≥ 0 for each, which stands for that key alone.

    `of` is whose numbers they are: another's are others. A detector may pass them over: this is a list of keys. Only
    one that is `Forgetting` is given `renewed`: numbers that begin anew with their first row that comes, and their
    keys. It takes out those that have begun; what is left when all rows have come is to be forgotten.
    """

    def __init__(
        self,
        keys: Iterable[str],
        numbers: NDArray[np.int64],
        of: object,
        renewed: dict[int, str] | None = None,
    ) -> None:
        super().__init__(keys)
        self.numbers, self.of = numbers, of
        self.renewed = {} if renewed is None else renewed

    def take(self, rows: NDArray[np.intp]) -> Numbered:
        """Those of some rows."""
        return Numbered([self[row] for row in rows.tolist()], self.numbers[rows], self.of, self.renewed)

    def part(self, rows: slice) -> Numbered:
        """Those of consecutive rows."""
        return Numbered(self[rows], self.numbers[rows], self.of, self.renewed)


@runtime_checkable
class Forgetting(Protocol):
    """A detector that can forget keys, and that begins anew with the first row of each of `Numbered.renewed`."""

    def forget_keys(self, keys: Collection[str]) -> None:
        """From now on these keys are as if they had never been seen; those that are not held are passed over."""
        ...


@runtime_checkable
class Expecting(Protocol):
    """A detector that goes by numbers."""

    def expect(self, keys: Numbered) -> None:
        """Rows of these keys will come with these numbers: look up now those that are held."""
        ...


def first_rows_of_renewed(keys: Sequence[str]) -> list[int]:
    """The rows with which keys begin anew; they are taken out of `renewed`."""
    if not isinstance(keys, Numbered) or not keys.renewed:
        return []
    each, first = np.unique(keys.numbers, return_index=True)
    begun = zip(each.tolist(), first.tolist(), strict=True)
    return [row for number, row in begun if keys.renewed.pop(number, None) is not None]


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
