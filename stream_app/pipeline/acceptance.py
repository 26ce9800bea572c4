"""Acceptance: deduplication, verify and calculate, whose results for a row can depend on earlier rows.

An id is a duplicate only if the earlier event with that id was accepted, and `previous.<field>` is the value of the
device's last accepted row. To evaluate whole batches at once, all rows are first assumed to be accepted. If some were
not, and a later row of the same device may depend on them, that device's later rows are evaluated again
(`dependent_rows`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.model.record import Batch, Failure, IntVector
from stream_app.pipeline import evaluate
from stream_app.pipeline.dependent_rows import resolve_dependent_rows
from stream_app.pipeline.evaluate import EventStages, Rows
from stream_app.pipeline.state.deduplication import id_hashes
from stream_app.pipeline.state.event_state import EventState


class AcceptedRows(NamedTuple):
    """The rows that were accepted, the failures of verify and calculate, and the source rows of duplicates."""

    passed: Batch
    failed: list[Failure]
    repeated: IntVector


def accept_rows(batch: Batch, slots: IntVector, stages: EventStages, state: EventState) -> AcceptedRows:
    """Deduplicate the rows and run verify and calculate on them, as if one row at a time.

    `slots` has the device slot of each row, shape (n,). Updates the recent ids and the windows in `state`, but not
    always the previous values: the caller updates those.
    """
    rows = Rows(batch, slots, _hashes(batch, stages.codec.event.id))
    assumed = np.ones(len(batch), dtype=np.bool_)
    first = evaluate.evaluate(rows, assumed, stages, state)
    if not evaluate.invalidating_rows(first, stages.codec.event).any():
        evaluate.commit(first, state)
        return AcceptedRows(first.passed, first.failed, batch.rows[first.repeats.repeated])
    return AcceptedRows(*resolve_dependent_rows(rows, first, stages, state))


def _hashes(batch: Batch, field: str) -> IntVector:
    """Return a hash of each row's id, 0 for rows without an id."""
    hashes: NDArray[np.int64] = (
        id_hashes(batch.exact(field)) if field in batch else np.zeros(len(batch), dtype=np.int64)
    )
    return hashes
