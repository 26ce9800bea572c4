"""Which rows of a batch are accepted, where that depends on which rows before them are.

A row's fate can depend on an earlier one of its device: an id is repeated only if it was accepted, a previous value
is that of the last accepted row. So a guess is made (all are accepted), and all rows are evaluated at once. Where the
guess was wrong in a way that matters, the rows of that device after the first wrong one are evaluated again
(`dependent_rows`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.model.record import Batch, Failure, IntVector
from stream_app.pipeline import evaluate
from stream_app.pipeline.dependent_rows import resolve_dependent_rows
from stream_app.pipeline.evaluate import Rows
from stream_app.pipeline.registry import Codec
from stream_app.pipeline.state.deduplication import id_hashes
from stream_app.pipeline.state.shard_state import EventState


class AcceptedRows(NamedTuple):
    """Rows that passed verify and calculate, those that did not, and the numbers of rows that are repeats."""

    passed: Batch
    failed: list[Failure]
    repeated: IntVector


def accept_rows(batch: Batch, devices: IntVector, codec: Codec, state: EventState) -> AcceptedRows:
    """Take rows, in order, through the stages that decide whether they are accepted; `devices` are their numbers.

    Afterwards their ids and windows are remembered in `state`; previous values may not be yet.
    """
    rows = Rows(batch, devices, _marks(batch, codec))
    guess = np.ones(len(batch), dtype=np.bool_)
    first = evaluate.evaluate(rows, guess, codec, state)
    if not evaluate.invalidating_rows(first, codec).any():
        evaluate.commit(first, state)
        return AcceptedRows(first.passed, first.failed, batch.rows[first.met.again])
    return AcceptedRows(*resolve_dependent_rows(rows, first, codec, state))


def _marks(batch: Batch, codec: Codec) -> IntVector:
    """The ids by which repeats are known; 0 where there is none."""
    name = codec.event.id
    marks: NDArray[np.int64] = (
        id_hashes(batch.exact(name)) if name in batch else np.zeros(len(batch), dtype=np.int64)
    )
    return marks
