"""Which rows of a batch are accepted, where that depends on which rows before them are.

A row's fate can depend on an earlier one of its device: an id is repeated only if it was accepted, a previous value
is that of the last accepted row. So a guess is made (all are accepted), all rows are taken at once, and where the
guess was wrong in a way that matters, they are taken again with what came out. After n rounds the first n rows are
right, whatever the guess; in practice the first or the second round is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.pipeline.calculate import calculate
from stream_app.pipeline.registry import Codec
from stream_app.pipeline.seen import Met, marks_of
from stream_app.pipeline.state import EventState
from stream_app.pipeline.verify import verify
from stream_app.pipeline.windows import Kept
from stream_app.record import Batch, Failure, IntVector, Mask


class Settled(NamedTuple):
    """Rows that passed verify and calculate, those that did not, and the numbers of rows that are repeats."""

    passed: Batch
    failed: list[Failure]
    repeated: IntVector


class _Round(NamedTuple):
    passed: Batch
    failed: list[Failure]
    kept: Kept | None


def settle(batch: Batch, devices: IntVector, codec: Codec, state: EventState) -> Settled:
    """Take rows, in order, through the stages that decide whether they are accepted; `devices` are their numbers.

    Afterwards their ids and windows are remembered in `state`; previous values are not yet.
    """
    marks = _marks(batch, codec)
    guess: Mask = np.ones(len(batch), dtype=np.bool_)
    while True:
        met = state.seen.meet(devices, marks, guess)
        expected = guess & ~met.again
        done = _round(batch, devices, expected, met, codec, state)
        accepted = _accepted(batch, done.passed)
        if _right(expected, accepted, met, bool(codec.event.previous)):
            break
        state.seen.undo(met)
        if state.windows is not None and done.kept is not None:
            state.windows.put_back(done.kept)
        guess = accepted
    if done.failed:
        state.seen.drop(met, np.flatnonzero(expected & ~accepted))
    return Settled(done.passed, done.failed, batch.rows[met.again])


def _round(
    batch: Batch, devices: IntVector, expected: Mask, met: Met, codec: Codec, state: EventState
) -> _Round:
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
        if codec.event.previous or (met.by >= 0).any():  # there may be another round
            kept = state.windows.keep(own)
        sound = sound.with_columns(state.windows.recall(own, sound))
    calculated = calculate(sound, codec)
    return _Round(calculated.passed, [*verified.failed, *calculated.failed], kept)


def _marks(batch: Batch, codec: Codec) -> IntVector:
    """The ids by which repeats are known; 0 where there is none."""
    name = codec.event.id
    marks: NDArray[np.int64] = (
        marks_of(batch.exact(name)) if name in batch else np.zeros(len(batch), dtype=np.int64)
    )
    return marks


def _accepted(batch: Batch, passed: Batch) -> Mask:
    if len(passed) == len(batch):
        return np.ones(len(batch), dtype=np.bool_)
    accepted = np.zeros(len(batch), dtype=np.bool_)
    accepted[np.searchsorted(batch.rows, passed.rows)] = True
    return accepted


def _right(expected: Mask, accepted: Mask, met: Met, previous: bool) -> bool:
    """Whether no row was taken on a wrong assumption about another."""
    wrong = expected != accepted
    if previous or not wrong.any():
        return not wrong.any()
    givers = met.by[met.by >= 0]
    return not (accepted & wrong).any() and not wrong[givers].any()
