"""Processing of records without their quarantined rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stream_app.model.record import Batch, Failure, IntVector, Record
from stream_app.model.records import Records
from stream_app.pipeline.flow import Processed, process
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.state.shard_state import ShardState


def process_without(
    records: Sequence[Record],
    registry: Registry,
    state: ShardState,
    max_bytes: int,
    excluded: Mapping[int, Failure],
) -> Processed:
    """Run `process` on all rows except the `excluded` ones, which are returned as their given failures.

    Excluded rows do not change the state, so that a repaired event is accepted under the same id. Raises the errors
    of `process`.
    """
    if not excluded:
        return process(records, registry, state, max_bytes)
    every = Records.of(records)
    kept = np.setdiff1d(np.arange(len(every)), sorted(excluded))
    result = process(_without(every, sorted(excluded)), registry, state, max_bytes)
    failed = [failure.moved(int(kept[failure.row]) - failure.row) for failure in result.failed]
    failed += [failure.moved(row - failure.row) for row, failure in excluded.items()]
    return Processed(
        {name: _at(batch, kept) for name, batch in result.passed.items()},
        sorted(failed, key=lambda failure: failure.row),
        kept[result.repeated],
    )


def _without(records: Records, rows: Sequence[int]) -> Records:
    begins, ends = [0, *(row + 1 for row in rows)], [*rows, len(records)]
    parts = [records.part(start, stop) for start, stop in zip(begins, ends, strict=True) if start < stop]
    return Records.joined(parts)


def _at(batch: Batch, rows: IntVector) -> Batch:
    return Batch(batch.event, batch.columns, rows[batch.rows])
