"""One evaluation of rows under an assumption of which of them are accepted, and its commit or rollback."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from stream_app.model.event import Event
from stream_app.model.record import Batch, Failure, IntVector, Mask, Outcome
from stream_app.pipeline.registry import Codec
from stream_app.pipeline.state.deduplication import Repeats
from stream_app.pipeline.state.event_state import EventState
from stream_app.pipeline.state.windows import SavedWindows

Stage = Callable[[Batch, Codec], Outcome]


class EventStages(NamedTuple):
    """The two stages that call the user's code, and the event type that they run for."""

    verify: Stage
    calculate: Stage
    codec: Codec


class Rows(NamedTuple):
    """Rows of one event type, in order, with their device slots and the hashes of their ids (0: no id)."""

    batch: Batch
    slots: IntVector
    hashes: IntVector

    def take(self, at: IntVector | Mask) -> Rows:
        """Return the rows that `at` selects."""
        return Rows(self.batch.take(at), self.slots[at], self.hashes[at])


class Evaluated(NamedTuple):
    """The result of an evaluation; the masks have one entry for each row.

    `assumed`: the rows that were assumed to be accepted and are no duplicates. `accepted`: the rows that passed.
    `windowed`: the rows that were added to the windows. `saved_windows` holds the windows as they were before.
    """

    assumed: Mask
    accepted: Mask
    windowed: Mask
    repeats: Repeats
    passed: Batch
    failed: list[Failure]
    saved_windows: SavedWindows | None


def evaluate(
    rows: Rows, assumed: Mask, stages: EventStages, state: EventState, *, again: bool = False
) -> Evaluated:
    """Deduplicate, verify and calculate rows, assuming that the rows of `assumed` are accepted.

    Adds the ids and the windows to `state`; the caller must `commit` or `roll_back`. Set `again` for rows that were
    evaluated before.
    """
    batch, slots, hashes = rows
    repeats = state.recent_ids.check_and_add(slots, hashes, assumed)
    assumed = assumed & ~repeats.repeated
    fresh, fresh_slots = batch, slots
    if state.previous is not None:
        fresh = fresh.with_columns(state.previous.columns(slots, batch, assumed))
    if repeats.repeated.any():
        fresh, fresh_slots = fresh.take(~repeats.repeated), slots[~repeats.repeated]
    verified = stages.verify(fresh, stages.codec)
    valid, saved = verified.passed, None
    if state.windows is not None and len(valid):
        if len(valid) < len(fresh):
            fresh_slots = fresh_slots[np.searchsorted(fresh.rows, valid.rows)]
        if again or stages.codec.event.previous or repeats.repeated.any():  # a rollback may follow
            saved = state.windows.save(fresh_slots)
        valid = valid.with_columns(state.windows.add(fresh_slots, valid))
    calculated = stages.calculate(valid, stages.codec)
    failed = [*verified.failed, *calculated.failed]
    windowed, accepted = _mask_of(batch, valid), _mask_of(batch, calculated.passed)
    return Evaluated(assumed, accepted, windowed, repeats, calculated.passed, failed, saved)


def invalidating_rows(evaluated: Evaluated, event: Event) -> Mask:
    """Return the rows whose wrong assumption may have changed the result of a later row, shape (n,)."""
    wrong: Mask = evaluated.assumed != evaluated.accepted
    if event.previous or not wrong.any():
        return wrong
    is_original = np.zeros(len(wrong), dtype=np.bool_)
    originals = evaluated.repeats.originals
    is_original[originals[originals >= 0]] = True
    return wrong & (evaluated.accepted | is_original)


def commit(evaluated: Evaluated, state: EventState) -> None:
    """Keep the updates of an evaluation without invalidating rows; remove the ids of rows that failed."""
    if evaluated.failed:
        state.recent_ids.remove(evaluated.repeats, np.flatnonzero(evaluated.assumed & ~evaluated.accepted))


def roll_back(evaluated: Evaluated, state: EventState) -> None:
    """Restore the ids and the windows as they were before the evaluation."""
    state.recent_ids.undo(evaluated.repeats)
    if state.windows is not None and evaluated.saved_windows is not None:
        state.windows.restore(evaluated.saved_windows)


def apply_final(rows: Rows, accepted: Mask, windowed: Mask, state: EventState) -> None:
    """Add the ids and the windows of rows whose results are final."""
    state.recent_ids.check_and_add(rows.slots, rows.hashes, accepted)
    if state.windows is not None and windowed.any():
        state.windows.add(rows.slots[windowed], rows.batch.take(windowed))


def _mask_of(batch: Batch, part: Batch) -> Mask:
    """Return which rows of `batch` are in `part`, shape (n,)."""
    if len(part) == len(batch):
        return np.ones(len(batch), dtype=np.bool_)
    found = np.zeros(len(batch), dtype=np.bool_)
    found[np.searchsorted(batch.rows, part.rows)] = True
    return found
