"""One evaluation of some rows on a guess of which of them are accepted, and how it is taken back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stream_app.model.record import Batch, Failure, IntVector, Mask
from stream_app.pipeline.calculate import calculate
from stream_app.pipeline.registry import Codec
from stream_app.pipeline.state.deduplication import Repeats
from stream_app.pipeline.state.shard_state import EventState
from stream_app.pipeline.state.windows import SavedWindows
from stream_app.pipeline.verify import verify


class Rows(NamedTuple):
    """Rows of one event type in order, the numbers of their devices, and the marks of their ids (0: none)."""

    batch: Batch
    devices: IntVector
    marks: IntVector

    def take(self, at: IntVector | Mask) -> Rows:
        """Return the rows that `at` selects."""
        return Rows(self.batch.take(at), self.devices[at], self.marks[at])


class Evaluated(NamedTuple):
    """What the stages made of rows of which `expected` were expected to be accepted; `noted` are in windows now.

    `expected`, `accepted` and `noted` are masks of the rows, `kept` is what windows held before.
    """

    expected: Mask
    accepted: Mask
    noted: Mask
    met: Repeats
    passed: Batch
    failed: list[Failure]
    kept: SavedWindows | None


def evaluate(rows: Rows, guess: Mask, codec: Codec, state: EventState, *, again: bool = False) -> Evaluated:
    """Take rows through verify and calculate, as if those of `guess` that are no repeats were accepted.

    Ids and windows are remembered accordingly: `accept` or `take_back` must follow. `again` is for rows that were
    evaluated before.
    """
    batch, devices, marks = rows
    met = state.seen.check_and_add(devices, marks, guess)
    expected = guess & ~met.again
    fresh, own = batch, devices
    if state.previous is not None:
        fresh = fresh.with_columns(state.previous.recall(devices, batch, expected))
    if met.again.any():
        fresh, own = fresh.take(~met.again), devices[~met.again]
    verified = verify(fresh, codec)
    sound, kept = verified.passed, None
    if state.windows is not None and len(sound):
        if len(sound) < len(fresh):
            own = own[np.searchsorted(fresh.rows, sound.rows)]
        if again or codec.event.previous or met.again.any():  # the guess may have to be taken back
            kept = state.windows.keep(own)
        sound = sound.with_columns(state.windows.recall(own, sound))
    calculated = calculate(sound, codec)
    failed = [*verified.failed, *calculated.failed]
    noted, accepted = _among(batch, sound), _among(batch, calculated.passed)
    return Evaluated(expected, accepted, noted, met, calculated.passed, failed, kept)


def invalidating_rows(evaluated: Evaluated, codec: Codec) -> Mask:
    """Return the rows that were guessed wrong, as far as a later row may have been evaluated differently for it."""
    wrong: Mask = evaluated.expected != evaluated.accepted
    if codec.event.previous or not wrong.any():
        return wrong
    giver = np.zeros(len(wrong), dtype=np.bool_)
    by = evaluated.met.by
    giver[by[by >= 0]] = True
    return wrong & (evaluated.accepted | giver)


def commit(evaluated: Evaluated, state: EventState) -> None:
    """Keep what was remembered, but for ids of rows that were not accepted after all; no row may be misleading."""
    if evaluated.failed:
        state.seen.drop(evaluated.met, np.flatnonzero(evaluated.expected & ~evaluated.accepted))


def roll_back(evaluated: Evaluated, state: EventState) -> None:
    """Restore ids and windows as they were before the rows were evaluated."""
    state.seen.undo(evaluated.met)
    if state.windows is not None and evaluated.kept is not None:
        state.windows.put_back(evaluated.kept)


def apply_final(rows: Rows, accepted: Mask, noted: Mask, state: EventState) -> None:
    """Remember ids and windows of rows whose fate is known."""
    state.seen.check_and_add(rows.devices, rows.marks, accepted)
    if state.windows is not None and noted.any():
        state.windows.recall(rows.devices[noted], rows.batch.take(noted))


def _among(batch: Batch, some: Batch) -> Mask:
    if len(some) == len(batch):
        return np.ones(len(batch), dtype=np.bool_)
    found = np.zeros(len(batch), dtype=np.bool_)
    found[np.searchsorted(batch.rows, some.rows)] = True
    return found
