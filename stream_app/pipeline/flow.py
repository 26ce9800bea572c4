"""The order of the stages, in one place: decode, conform, verify, calculate, score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.errors import FatalError
from stream_app.pipeline.calculate import calculate
from stream_app.pipeline.conform import conform
from stream_app.pipeline.decode import Encoded, decode
from stream_app.pipeline.registry import Codec, Registry
from stream_app.pipeline.rules import judged
from stream_app.pipeline.score import score
from stream_app.pipeline.state import EventState, ShardState
from stream_app.pipeline.verify import verify
from stream_app.record import Batch, Failure, IntVector, Record, concat


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
    encoded, failed = decode(records, registry, max_bytes)
    passed: dict[str, Batch] = {}
    repeated: list[IntVector] = []
    for event, rows in encoded.items():
        batch, failures, again = _one_event(rows, registry.codecs[event], records, state[event])
        if batch is not None and len(batch):
            passed[event] = batch
        failed += failures
        repeated.append(again)
    failed.sort(key=lambda failure: failure.row)
    result = Processed(passed, failed, np.sort(np.concatenate(repeated)) if repeated else _NO_ROWS)
    _account(result, len(records))
    return result


_NO_ROWS: IntVector = np.zeros(0, dtype=np.int64)


def _one_event(
    encoded: Encoded, codec: Codec, records: Sequence[Record], state: EventState
) -> tuple[Batch | None, list[Failure], IntVector]:
    outcome = conform(encoded, codec, records)
    failed = list(outcome.failed)
    passed: list[Batch] = []
    repeated: list[IntVector] = []
    for part in _rounds(outcome.passed, codec):
        batch, failures, again = _round(part, codec, state)
        passed.append(batch)
        failed += failures
        repeated.append(again)
    return _in_order(passed), failed, np.concatenate(repeated) if repeated else _NO_ROWS


def _round(batch: Batch, codec: Codec, state: EventState) -> tuple[Batch, list[Failure], IntVector]:
    event = codec.event
    keys, ids = batch[event.key], _ids(batch, codec)
    again, numbers = state.seen.meet(keys, ids)
    fresh = batch.take(~again) if again.any() else batch
    if state.previous:
        fresh = fresh.with_columns(state.previous.recall(fresh[event.key], fresh))
    verified = verify(fresh, codec)
    sound = verified.passed
    if state.windows and len(sound):
        sound = sound.with_columns(state.windows.recall(sound[event.key], sound))
    calculated = calculate(sound, codec)
    # Only accepted events are remembered: what failed may come again, repaired, under the same id.
    at = np.searchsorted(batch.rows, calculated.passed.rows)
    if state.checks is None:
        scored = score(calculated.passed, event, state.detector)
    else:
        flags = state.checks.mark(keys[at], batch.take(at))
        scored = judged(calculated.passed, flags, event, state.detector)
    if state.previous:
        state.previous.remember(keys[at], batch.take(at))
    state.seen.remember(keys[at], ids[at], numbers[at])
    return scored, [*verified.failed, *calculated.failed], batch.rows[again]


def _ids(batch: Batch, codec: Codec) -> NDArray[Any]:
    """The ids by which repeats are known; None where there is none."""
    if codec.event.id not in batch:
        return np.full(len(batch), None, dtype=object)
    return batch[codec.event.id]


def _rounds(batch: Batch, codec: Codec) -> Iterator[Batch]:
    """Cut a batch so that within a round no device repeats an id, nor, with `previous`, comes twice.

    Devices are independent of each other, so a round may take rows of all of them at once; each device's rows
    stay in order.
    """
    keys = batch[codec.event.key].tolist()
    numbers = _occurrence(keys) if codec.event.previous else _repeat_rounds(keys, _ids(batch, codec).tolist())
    last = max(numbers, default=0)
    if last == 0:
        if len(batch):
            yield batch
        return
    number = np.array(numbers)
    for wanted in range(last + 1):
        yield batch.take(np.flatnonzero(number == wanted))


def _occurrence(keys: Sequence[Any]) -> list[int]:
    counts: dict[Any, int] = {}
    numbers = []
    for key in keys:
        number = counts.get(key, 0)
        counts[key] = number + 1
        numbers.append(number)
    return numbers


def _repeat_rounds(keys: Sequence[Any], ids: Sequence[Any]) -> list[int]:
    if len(set(zip(keys, ids, strict=True))) == len(keys):
        return [0] * len(keys)
    current: dict[Any, tuple[int, set[Any]]] = {}
    numbers = []
    for key, event_id in zip(keys, ids, strict=True):
        number, seen = current.get(key, (0, set()))
        if event_id in seen and event_id is not None:
            number, seen = number + 1, set()
        seen.add(event_id)
        current[key] = (number, seen)
        numbers.append(number)
    return numbers


def _in_order(parts: list[Batch]) -> Batch | None:
    batch = concat([part for part in parts if len(part)])
    if batch is None or len(parts) == 1:
        return batch
    return batch.take(np.argsort(batch.rows, kind="stable"))


def _account(result: Processed, count: int) -> None:
    times = np.zeros(count, dtype=np.int64)
    for batch in result.passed.values():
        np.add.at(times, batch.rows, 1)
    np.add.at(times, [failure.row for failure in result.failed], 1)
    np.add.at(times, result.repeated, 1)
    if (times != 1).any():
        wrong = np.flatnonzero(times != 1)[:10].tolist()
        raise FatalError(f"rows {wrong} of {count} are not accounted for exactly once")
