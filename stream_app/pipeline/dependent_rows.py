"""Rows whose outcome depends on earlier rows of their device, where the guess about those was wrong.

Up to the first row of a device that was guessed wrong, all rows were evaluated on right assumptions, so their results
are final. The rows after it are evaluated again on a better guess, those of all such devices together, until none is
left. Each evaluation makes at least one row of each device final; rows are never evaluated one by one unless neither
of two guesses holds:

- as the row came out in its last evaluation, which converges where rows depend on a few rows before them;
- as the device's last final row came out, which holds where one outcome decides many (a parcel that was never picked
  up).

All rows of the devices are evaluated a few times; after that only as many as twice what the last evaluation made
final. So the rows evaluated in total are a small multiple of the rows there are, whatever they contain.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_app.model.record import Batch, Failure, IntVector, Mask, concat
from stream_app.pipeline import evaluate
from stream_app.pipeline.evaluate import Evaluated, Rows
from stream_app.pipeline.registry import Codec
from stream_app.pipeline.state.shard_state import EventState

FULL_PASSES = 3
"""How many times all rows that are not final are evaluated, before fewer are taken at a time."""
MIN_CHUNK = 128
"""Rows of a device that are evaluated together at least: a few cost as much as one."""

Decided = tuple[Batch, list[Failure], IntVector]
"""Rows that passed, failures, and the numbers of rows that are repeats."""


def resolve_dependent_rows(rows: Rows, first: Evaluated, codec: Codec, state: EventState) -> Decided:
    """Evaluate rows until the results of all are final; `first` is their evaluation with all expected as accepted.

    Afterwards ids, windows and previous values are remembered in `state`.
    """
    results = _Results(rows)
    final = results.add(rows, first, codec, state)
    pending = _Pending(rows.devices, final, first)
    while len(pending):
        at, guess = pending.next()
        some = rows.take(at)
        evaluated = evaluate.evaluate(some, guess, codec, state, again=True)
        pending.update(results.add(some, evaluated, codec, state), evaluated)
    return results.together()


class _Results:
    """Final results, collected from several evaluations."""

    def __init__(self, rows: Rows) -> None:
        self._nothing = rows.batch.take(slice(0, 0))
        self._passed: list[Batch] = []
        self._failed: list[Failure] = []
        self._repeated: list[IntVector] = []

    def add(self, rows: Rows, evaluated: Evaluated, codec: Codec, state: EventState) -> Mask:
        """Keep what is final of an evaluation, remember it in `state`, and return which rows it is."""
        misleading = evaluate.invalidating_rows(evaluated, codec)
        final, known = _final(rows.devices, misleading), rows
        if not misleading.any():
            evaluate.commit(evaluated, state)
        else:
            known = rows.take(final)
            evaluate.roll_back(evaluated, state)
            evaluate.apply_final(known, evaluated.accepted[final], evaluated.noted[final], state)
        accepted = evaluated.accepted[final]
        if state.previous is not None and accepted.any():
            state.previous.remember(known.devices[accepted], known.batch.take(accepted))
        self._keep(rows, evaluated, final)
        return final

    def _keep(self, rows: Rows, evaluated: Evaluated, final: Mask) -> None:
        self._repeated.append(rows.batch.rows[final & evaluated.met.again])
        if final.all():
            self._passed.append(evaluated.passed)
            self._failed += evaluated.failed
            return
        self._passed.append(evaluated.passed.take(final[evaluated.accepted]))
        if evaluated.failed:
            known = set(rows.batch.rows[final].tolist())
            self._failed += [failure for failure in evaluated.failed if failure.row in known]

    def together(self) -> Decided:
        """Return everything in the order of rows."""
        passed = concat(part for part in self._passed if len(part)) or self._nothing
        repeated = np.sort(np.concatenate(self._repeated))
        return passed.take(np.argsort(passed.rows)), self._failed, repeated


def _final(devices: IntVector, misleading: Mask) -> Mask:
    """Return the rows up to the first misleading one of their device, shape (n,)."""
    if not misleading.any():
        return np.ones(len(devices), dtype=np.bool_)
    rows = np.arange(len(devices))
    each, device = np.unique(devices, return_inverse=True)
    first = np.full(len(each), len(devices))
    np.minimum.at(first, device[misleading], rows[misleading])
    final: Mask = rows <= first[device]
    return final


class _Pending:
    """The rows that are not final yet, device by device, and the guesses about them."""

    def __init__(self, devices: IntVector, final: Mask, first: Evaluated) -> None:
        each, device = np.unique(devices, return_inverse=True)
        pending = np.flatnonzero(~final)
        counts = np.bincount(device[pending], minlength=len(each))
        self._order: IntVector = pending[np.argsort(device[pending], kind="stable")]
        self._stop: IntVector = np.cumsum(counts)
        self._at: IntVector = self._stop - counts
        self._size: IntVector = counts.copy()
        # A repeat was not evaluated: it is expected to pass once the row that it repeats has failed.
        self._by_row: Mask = first.accepted | first.met.again
        self._last: Mask = np.ones(len(each), dtype=np.bool_)
        self._use_last: Mask = np.zeros(len(each), dtype=np.bool_)
        self._whole = FULL_PASSES
        self._note_last(device, final, first)
        self._taken: tuple[NDArray[np.int64], ...] = ()

    def __len__(self) -> int:
        return int((self._stop - self._at).sum())

    def next(self) -> tuple[IntVector, Mask]:
        """Return the rows to evaluate next, in order, and which of them are expected to be accepted."""
        active = np.flatnonzero(self._at < self._stop)
        counts = np.minimum(self._size[active], self._stop[active] - self._at[active])
        ends = np.cumsum(counts)
        at = self._order[np.arange(ends[-1]) + np.repeat(self._at[active] - ends + counts, counts)]
        device = np.repeat(active, counts)
        if len(active) > 1:
            in_order = np.argsort(at)
            at, device = at[in_order], device[in_order]
        guess: Mask = np.where(self._use_last[device], self._last[device], self._by_row[at])
        self._taken = (active, counts, at, device)
        return at, guess

    def update(self, final: Mask, evaluated: Evaluated) -> None:
        """Note what came of the rows that `next` gave."""
        active, counts, at, device = self._taken
        by_row = ~self._use_last[device]
        self._by_row[at[by_row]] = (evaluated.accepted | evaluated.met.again)[by_row]
        self._note_last(device, final, evaluated)
        done = np.bincount(device[final], minlength=len(self._at))[active]
        self._at[active] += done
        complete = done == counts
        self._use_last[active] ^= ~complete
        self._whole -= 1
        if self._whole <= 0:
            self._size[active] = np.where(complete, 2 * counts, np.maximum(2 * done, MIN_CHUNK))

    def _note_last(self, device: IntVector, final: Mask, evaluated: Evaluated) -> None:
        known = final & ~evaluated.met.again
        self._last[device[known]] = evaluated.accepted[known]  # of several of a device the last stays
