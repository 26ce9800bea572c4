"""The pipeline: all stages in their order, as a pure function of a shard's records and its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stream_app.errors import FatalError
from stream_app.model.record import Batch, Failure, IntVector, Record, concat
from stream_app.model.records import Records
from stream_app.pipeline.acceptance import accept_rows
from stream_app.pipeline.calculate import calculate
from stream_app.pipeline.decode import decode
from stream_app.pipeline.evaluate import EventStages
from stream_app.pipeline.payload_identity import with_identity
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.schema_resolution import resolve_schema
from stream_app.pipeline.score import score_unflagged
from stream_app.pipeline.sensor_checks import flag_rows
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.pipeline.verify import verify


@dataclass(frozen=True, slots=True)
class Processed:
    """Every row of the records, exactly once: passed (by event name), failed, or repeated (a duplicate id)."""

    passed: Mapping[str, Batch]
    failed: Sequence[Failure]
    repeated: IntVector


def process(records: Sequence[Record], registry: Registry, state: ShardState, max_bytes: int) -> Processed:
    """Process consecutive records of one shard and update `state`.

    The result depends only on the order of the records: any split into calls gives the same rows and scores.
    Records above `max_bytes` fail as TOO_LARGE. Raises FatalError when a row is not accounted for (a defect of the
    pipeline).
    """
    records = Records.of(records)
    arrivals = state.effective_arrivals(records.arrived)
    parts = [
        (start, run_stages(records.part(start, stop), arrivals[start:stop], registry, state, max_bytes))
        for start, stop in state.split_at_expiry(arrivals)
    ]
    state.reclaim_memory()
    return parts[0][1] if len(parts) == 1 else _joined(parts)


def run_stages(
    records: Records, arrivals: IntVector, registry: Registry, state: ShardState, max_bytes: int
) -> Processed:
    """Run all stages, in order, on records during which no device can expire and return.

    `accept_rows` decides row by row, in the order of the records, between three outcomes: a duplicate id is dropped,
    a row that fails `verify` or `calculate` is a failure, and any other row is accepted. Only accepted rows update
    the state, so that a failed event can be repaired and sent again under the same id.
    """
    encoded, failed = decode(records.payloads, registry, max_bytes)
    passed: dict[str, Batch] = {}
    repeated = [_NO_ROWS]
    for name, rows in encoded.items():
        codec, event_state = registry.codecs[name], state[name]
        resolved = resolve_schema(rows, codec, records.arrived)
        failed += resolved.failed
        if not len(resolved.passed):
            continue
        batch = with_identity(resolved.passed, records.payloads, codec.event)
        devices = event_state.look_up_devices(batch, arrivals)
        stages = EventStages(verify, calculate, codec)
        accepted = accept_rows(batch, devices.slots, stages, event_state)
        failed += accepted.failed
        repeated.append(accepted.repeated)
        devices = devices.at_rows(batch.rows, accepted.passed.rows)
        if event_state.previous is not None:
            event_state.previous.update(devices.slots, accepted.passed)
        flags = flag_rows(accepted.passed, devices.slots, event_state.checks)
        keys = event_state.detector_keys(devices)
        scored = score_unflagged(accepted.passed, flags, codec.event, event_state.detector, keys)
        event_state.forget_unscored(keys)
        if len(scored):
            passed[name] = scored
    failed.sort(key=lambda failure: failure.row)
    return _checked(Processed(passed, failed, np.sort(np.concatenate(repeated))), len(records))


_NO_ROWS: IntVector = np.zeros(0, dtype=np.int64)


def _joined(parts: Sequence[tuple[int, Processed]]) -> Processed:
    """Join the results of consecutive parts, each given with the row of the call at which it starts."""
    passed: dict[str, Batch] = {}
    for event in dict.fromkeys(event for _, part in parts for event in part.passed):
        own = [(start, part.passed[event]) for start, part in parts if event in part.passed]
        whole = concat([batch for _, batch in own], [start for start, _ in own])
        if whole is not None:
            passed[event] = whole
    failed = [failure.moved(start) for start, part in parts for failure in part.failed]
    return Processed(passed, failed, np.concatenate([part.repeated + start for start, part in parts]))


def _checked(result: Processed, count: int) -> Processed:
    """Return `result`; raise FatalError unless it holds each of `count` rows exactly once."""
    rows = [batch.rows for batch in result.passed.values()]
    failed = np.array([failure.row for failure in result.failed], dtype=np.int64)
    times = np.bincount(np.concatenate([*rows, failed, result.repeated]), minlength=count)
    if (times != 1).any():
        unaccounted = np.flatnonzero(times != 1)[:10].tolist()
        raise FatalError(f"rows {unaccounted} of {count} are not accounted for exactly once")
    return result
