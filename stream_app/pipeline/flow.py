"""The order of the stages, in one place: decode, conform, verify, calculate, score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stream_app.errors import FatalError
from stream_app.model.record import Batch, Failure, IntVector, Record, concat
from stream_app.model.records import Records
from stream_app.pipeline.acceptance import accept_rows
from stream_app.pipeline.decode import EncodedRows, decode
from stream_app.pipeline.payload_identity import with_identity
from stream_app.pipeline.registry import Codec, Registry
from stream_app.pipeline.schema_resolution import resolve_schema
from stream_app.pipeline.score import score
from stream_app.pipeline.sensor_checks import flag_and_score
from stream_app.pipeline.state.shard_state import EventState, ShardState


@dataclass(frozen=True, slots=True)
class Processed:
    """Every row of a run of records, once: passed by event, failed, or repeated (an id accepted before)."""

    passed: Mapping[str, Batch]
    failed: Sequence[Failure]
    repeated: IntVector


def process(records: Sequence[Record], registry: Registry, state: ShardState, max_bytes: int) -> Processed:
    """Run consecutive records of one shard through all stages and learn from them.

    A function of the records' order alone: any split into calls gives the same rows and scores. Raises
    FatalError when a row is not accounted for, which would be a bug of ours.
    """
    records = Records.of(records)
    moments = state.moments(records.arrived)
    parts = [
        (start, _process(records.part(start, stop), registry, state, max_bytes, moments[start:stop]))
        for start, stop in state.spans(moments)
    ]
    state.tidy()
    return parts[0][1] if len(parts) == 1 else _joined(parts)


def _process(
    records: Records, registry: Registry, state: ShardState, max_bytes: int, moments: IntVector
) -> Processed:
    """`process`, of records between the first and the last of which no device is forgotten and comes back."""
    encoded, failed = decode(records.payloads, registry, max_bytes)
    passed: dict[str, Batch] = {}
    repeated: list[IntVector] = []
    for event, rows in encoded.items():
        given = rows, registry.codecs[event], records, moments, state[event]
        batch, failures, again = _one_event(*given)
        if len(batch):
            passed[event] = batch
        failed += failures
        repeated.append(again)
    failed.sort(key=lambda failure: failure.row)
    result = Processed(passed, failed, np.sort(np.concatenate(repeated)) if repeated else _NO_ROWS)
    _account(result, len(records))
    return result


_NO_ROWS: IntVector = np.zeros(0, dtype=np.int64)


def _joined(parts: Sequence[tuple[int, Processed]]) -> Processed:
    """Consecutive parts as one; each begins at a row of the whole."""
    passed: dict[str, Batch] = {}
    for event in dict.fromkeys(event for _, part in parts for event in part.passed):
        own = [(start, part.passed[event]) for start, part in parts if event in part.passed]
        whole = concat([batch for _, batch in own], [start for start, _ in own])
        if whole is not None:
            passed[event] = whole
    failed = [failure.moved(start) for start, part in parts for failure in part.failed]
    return Processed(passed, failed, np.concatenate([part.repeated + start for start, part in parts]))


def _one_event(
    encoded: EncodedRows, codec: Codec, records: Records, moments: IntVector, state: EventState
) -> tuple[Batch, list[Failure], IntVector]:
    conformed = resolve_schema(encoded, codec, records.arrived)
    if not len(conformed.passed):
        return conformed.passed, list(conformed.failed), _NO_ROWS
    batch = with_identity(conformed.passed, records.payloads, codec.event)
    keys: list[Any] = batch[codec.event.key].tolist()
    moments = moments[batch.rows]
    found = state.devices.arrive(keys, moments)
    devices, renewed = found.numbers, state.renew(keys, found, moments)
    accepted_rows = accept_rows(batch, devices, codec, state)
    # Only accepted events are learnt from: what failed may come again, repaired, under the same id.
    if len(accepted_rows.passed) < len(batch):
        at = np.searchsorted(batch.rows, accepted_rows.passed.rows)
        batch, devices, keys = batch.take(at), devices[at], [keys[row] for row in at.tolist()]
    if state.previous is not None:
        state.previous.remember(devices, batch)
    numbered = state.numbered(keys, devices, renewed)
    if state.checks is None:
        scored = score(accepted_rows.passed, codec.event, state.detector, numbered)
    else:
        flags = state.checks.mark(devices, batch)
        scored = flag_and_score(accepted_rows.passed, flags, codec.event, state.detector, numbered)
    state.forget_unscored(numbered)
    return scored, [*conformed.failed, *accepted_rows.failed], accepted_rows.repeated


def _account(result: Processed, count: int) -> None:
    rows = [batch.rows for batch in result.passed.values()]
    failed = np.array([failure.row for failure in result.failed], dtype=np.int64)
    times = np.bincount(np.concatenate([*rows, failed, result.repeated]), minlength=count)
    if (times != 1).any():
        wrong = np.flatnonzero(times != 1)[:10].tolist()
        raise FatalError(f"rows {wrong} of {count} are not accounted for exactly once")
