"""Keys with numbers: a key that was looked up once is found by its number from then on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Slots = NDArray[np.intp]


class Numbered(list[str]):
    """A list of the keys of n rows, with `numbers` (n,): one non-negative integer per key.

    `of` is the object that assigned the numbers; those of different objects are unrelated. A detector may ignore the
    numbers. `renewed`, which is set only for a detector that is `Forgetting`, maps the numbers whose next row starts
    a new state to their keys. The detector removes the numbers whose rows it has processed; the keys that remain
    after all rows are to be forgotten.
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
        """Select rows by index."""
        return Numbered([self[row] for row in rows.tolist()], self.numbers[rows], self.of, self.renewed)

    def part(self, rows: slice) -> Numbered:
        """Select consecutive rows."""
        return Numbered(self[rows], self.numbers[rows], self.of, self.renewed)


@runtime_checkable
class Forgetting(Protocol):
    """A detector that can forget keys and starts a new state for the keys of `Numbered.renewed`."""

    def forget_keys(self, keys: Collection[str]) -> None:
        """Forget the state of these keys; unknown keys are ignored."""
        ...


@runtime_checkable
class Expecting(Protocol):
    """A detector that finds keys by their numbers."""

    def expect(self, keys: Numbered) -> None:
        """Look up these keys now, so that rows with their numbers need no lookup later."""
        ...


def first_rows_of_renewed(keys: Sequence[str]) -> list[int]:
    """Return the first row of each renewed key, and remove these keys from `renewed`."""
    if not isinstance(keys, Numbered) or not keys.renewed:
        return []
    numbers, first = np.unique(keys.numbers, return_index=True)
    first_rows = zip(numbers.tolist(), first.tolist(), strict=True)
    return [row for number, row in first_rows if keys.renewed.pop(number, None) is not None]


class SlotsByNumber:
    """A map from the numbers of keys to their slots, filled by `learn`."""

    def __init__(self) -> None:
        self._of: object = None
        self._places: Slots = np.zeros(0, np.intp)

    def find(self, keys: Sequence[str]) -> Slots:
        """Return the slot of each key, -1 if unknown or if the keys have no numbers."""
        if not isinstance(keys, Numbered):
            return np.full(len(keys), -1, np.intp)
        if keys.of is not self._of:
            self._of, self._places = keys.of, np.zeros(0, np.intp)
        more = int(keys.numbers.max(initial=-1)) + 1 - len(self._places)
        if more > 0:
            unknown = np.full(max(more, len(self._places)), -1, np.intp)
            self._places = np.concatenate([self._places, unknown])
        return self._places[keys.numbers]

    def learn(self, keys: Sequence[str], rows: Slots, slots: Slots) -> None:
        """Record the permanent slots (-1 for none yet) of some rows of the keys of the latest call of `find`."""
        if isinstance(keys, Numbered):
            self._places[keys.numbers[rows]] = slots
