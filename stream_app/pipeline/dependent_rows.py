"""Second and later evaluations of rows that depend on earlier rows which were wrongly assumed to be accepted.

All results up to and including the first wrongly assumed row of a device are final, because they rest on correct
assumptions. The device's later rows are evaluated again with a better assumption, together with those of all other
devices concerned, until every result is final. Each evaluation makes at least one row of each device final. Two kinds
of assumption alternate, so that rows are evaluated one by one only if neither holds:

- by row: the result of the row's last evaluation, which converges if rows depend on a few rows before them;
- by device: the result of the device's last final row, which holds if one result decides many (a parcel that was
  never picked up).

The first FULL_PASSES evaluations cover all pending rows of a device; later ones cover twice as many rows as the last
evaluation made final. The total number of evaluated rows is thereby a small multiple of the number of rows, for any
input.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_app.model.record import Batch, Failure, IntVector, Mask, concat
from stream_app.pipeline import evaluate
from stream_app.pipeline.evaluate import Evaluated, EventStages, Rows
from stream_app.pipeline.state.event_state import EventState

FULL_PASSES = 3
"""Evaluations of all pending rows, before the number of rows per evaluation is limited."""
MIN_CHUNK = 128
"""Minimum rows of a device per evaluation: evaluating a few rows costs as much as evaluating one."""

Results = tuple[Batch, list[Failure], IntVector]
"""Accepted rows, failures, and the source rows of duplicates."""


def resolve_dependent_rows(rows: Rows, first: Evaluated, stages: EventStages, state: EventState) -> Results:
    """Evaluate rows until all results are final; `first` is their evaluation with all rows assumed to be accepted.

    Updates the recent ids, the windows and the previous values in `state`.
    """
    results = _Results(rows)
    final = results.add(rows, first, stages, state)
    pending = _Pending(rows.slots, final, first)
    while len(pending):
        at, assumed = pending.next()
        part = rows.take(at)
        evaluated = evaluate.evaluate(part, assumed, stages, state, again=True)
        pending.update(results.add(part, evaluated, stages, state), evaluated)
    return results.combined()


class _Results:
    """Collects the final results of several evaluations."""

    def __init__(self, rows: Rows) -> None:
        self._nothing = rows.batch.take(slice(0, 0))
        self._passed: list[Batch] = []
        self._failed: list[Failure] = []
        self._repeated: list[IntVector] = []

    def add(self, rows: Rows, evaluated: Evaluated, stages: EventStages, state: EventState) -> Mask:
        """Keep the final results of an evaluation, apply them to `state`, and return the mask of the final rows."""
        invalidating = evaluate.invalidating_rows(evaluated, stages.codec.event)
        final, final_rows = _final(rows.slots, invalidating), rows
        if not invalidating.any():
            evaluate.commit(evaluated, state)
        else:
            final_rows = rows.take(final)
            evaluate.roll_back(evaluated, state)
            evaluate.apply_final(final_rows, evaluated.accepted[final], evaluated.windowed[final], state)
        accepted = evaluated.accepted[final]
        if state.previous is not None and accepted.any():
            state.previous.update(final_rows.slots[accepted], final_rows.batch.take(accepted))
        self._keep(rows, evaluated, final)
        return final

    def _keep(self, rows: Rows, evaluated: Evaluated, final: Mask) -> None:
        self._repeated.append(rows.batch.rows[final & evaluated.repeats.repeated])
        if final.all():
            self._passed.append(evaluated.passed)
            self._failed += evaluated.failed
            return
        self._passed.append(evaluated.passed.take(final[evaluated.accepted]))
        if evaluated.failed:
            final_source_rows = set(rows.batch.rows[final].tolist())
            self._failed += [failure for failure in evaluated.failed if failure.row in final_source_rows]

    def combined(self) -> Results:
        """Return all results, the accepted rows and the duplicates in the order of the rows."""
        passed = concat(part for part in self._passed if len(part)) or self._nothing
        repeated = np.sort(np.concatenate(self._repeated))
        return passed.take(np.argsort(passed.rows)), self._failed, repeated


def _final(slots: IntVector, invalidating: Mask) -> Mask:
    """Return the rows up to and including the first invalidating one of their device, shape (n,)."""
    if not invalidating.any():
        return np.ones(len(slots), dtype=np.bool_)
    rows = np.arange(len(slots))
    each, device = np.unique(slots, return_inverse=True)
    first = np.full(len(each), len(slots))
    np.minimum.at(first, device[invalidating], rows[invalidating])
    final: Mask = rows <= first[device]
    return final


class _Pending:
    """The rows that are not final yet, device by device, and the assumptions about them."""

    def __init__(self, slots: IntVector, final: Mask, first: Evaluated) -> None:
        each, device = np.unique(slots, return_inverse=True)
        pending = np.flatnonzero(~final)
        counts = np.bincount(device[pending], minlength=len(each))
        self._order: IntVector = pending[np.argsort(device[pending], kind="stable")]
        self._stop: IntVector = np.cumsum(counts)
        self._at: IntVector = self._stop - counts
        self._size: IntVector = counts.copy()
        # A duplicate was not evaluated; assume that it is accepted if its original turns out to have failed.
        self._by_row: Mask = first.accepted | first.repeats.repeated
        self._last: Mask = np.ones(len(each), dtype=np.bool_)
        self._use_last: Mask = np.zeros(len(each), dtype=np.bool_)
        self._whole = FULL_PASSES
        self._set_last(device, final, first)
        self._batch: tuple[NDArray[np.int64], ...] = ()

    def __len__(self) -> int:
        return int((self._stop - self._at).sum())

    def next(self) -> tuple[IntVector, Mask]:
        """Return the rows to evaluate next, in order, and the mask of those assumed to be accepted."""
        active = np.flatnonzero(self._at < self._stop)
        counts = np.minimum(self._size[active], self._stop[active] - self._at[active])
        ends = np.cumsum(counts)
        at = self._order[np.arange(ends[-1]) + np.repeat(self._at[active] - ends + counts, counts)]
        device = np.repeat(active, counts)
        if len(active) > 1:
            in_order = np.argsort(at)
            at, device = at[in_order], device[in_order]
        assumed: Mask = np.where(self._use_last[device], self._last[device], self._by_row[at])
        self._batch = (active, counts, at, device)
        return at, assumed

    def update(self, final: Mask, evaluated: Evaluated) -> None:
        """Record the results of the rows that `next` returned."""
        active, counts, at, device = self._batch
        by_row = ~self._use_last[device]
        self._by_row[at[by_row]] = (evaluated.accepted | evaluated.repeats.repeated)[by_row]
        self._set_last(device, final, evaluated)
        done = np.bincount(device[final], minlength=len(self._at))[active]
        self._at[active] += done
        complete = done == counts
        self._use_last[active] ^= ~complete
        self._whole -= 1
        if self._whole <= 0:
            self._size[active] = np.where(complete, 2 * counts, np.maximum(2 * done, MIN_CHUNK))

    def _set_last(self, device: IntVector, final: Mask, evaluated: Evaluated) -> None:
        known = final & ~evaluated.repeats.repeated
        self._last[device[known]] = evaluated.accepted[known]  # the last of several rows of a device wins
