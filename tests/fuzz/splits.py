"""Fuzzes sequences of records: results must not depend on how a sequence is split into batches."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

from stream_app.model.record import Record
from stream_app.pipeline.flow import process
from stream_app.pipeline.readers.fast_path import FastPath
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.testing import outcomes, record
from tests.fuzz.mutations import mutated
from tests.fuzz.split_cases import ARRIVED, EventCase, all_cases, without_event_name
from tests.fuzz.watch import bounded
from tests.support import RowOutcome, outcomes_of

_MAX_BYTES = 3_000
_SEEN_IDS = 5
_MANY = 400


class Prepared(NamedTuple):
    """A registry with the fast path, and the same registry without it."""

    registry: Registry
    slow_path: Registry


class _Result(NamedTuple):
    outcomes: dict[int, RowOutcome]
    snapshot: bytes


def fuzz(seed: int, count: int) -> None:
    """Test `count` records. Raises AssertionError, with a minimized sequence, if a property does not hold."""
    rng = random.Random(seed)
    done = 0
    while done < count:
        case, found = rng.choice(_prepared_cases())
        payloads = _sequence(case, rng, min(rng.choice((2, 3, 8, 12, 40, _MANY)), count - done))
        with bounded(payloads, len(payloads)):
            mismatch = difference(found, payloads, rng.randrange(2**32))
            if not mismatch and len(payloads) < _MANY and rng.random() < 0.03:
                _check_stored_rows(case, payloads, rng)
        if mismatch:
            events = ", ".join(case.events)
            payloads, mismatch = shortest(found, payloads, mismatch)
            raise AssertionError(f"{mismatch}\nevents: {events}\npayloads: {payloads!r}")
        done += len(payloads)


def prepared(registry: Registry) -> Prepared:
    """Return a registry with and without the fast path."""
    return Prepared(registry, replace(registry, fast_path=FastPath(())))


@cache
def _prepared_cases() -> list[tuple[EventCase, Prepared]]:
    return [(case, prepared(case.registry())) for case in all_cases()]


def _sequence(case: EventCase, rng: random.Random, length: int) -> list[bytes]:
    base = [case.payload(rng) for _ in range(length)]
    mutated_share = rng.choice((0.0, 0.1, 0.5))
    return [_changed(data, rng, base) if rng.random() < mutated_share else data for data in base]


def _changed(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    return without_event_name(data) if rng.random() < 0.1 else mutated(data, rng, others)


def difference(given: Prepared, payloads: Sequence[bytes], seed: int) -> str | None:
    """Compare one batch with single-record batches, a random split and the slow path; describe a difference."""
    records = [record(data, at, arrived=ARRIVED + at) for at, data in enumerate(payloads)]
    whole = _run(records, [len(records)], given.registry)
    rng = random.Random(seed)
    others = {"a random split": (given.registry, list(_sizes(len(records), rng)))}
    if len(records) < _MANY:
        others["single-record batches"] = (given.registry, [1] * len(records))
    if len(records) == _MANY or rng.random() < 0.3:
        others["the slow path"] = (given.slow_path, [len(records)])
    for name, (registry, sizes) in others.items():
        other = _run(records, sizes, registry)
        if mismatch := _compared(whole, other):
            return f"one batch and {name} differ: {mismatch}"
    return None


def _sizes(left: int, rng: random.Random) -> Iterator[int]:
    while left > 0:
        size = rng.randint(1, left)
        yield size
        left -= size


def _run(records: Sequence[Record], sizes: Sequence[int], registry: Registry) -> _Result:
    events = {name: codec.event for name, codec in registry.codecs.items()}
    state, found, start = ShardState(events, _SEEN_IDS), dict[int, RowOutcome](), 0
    for size in sizes:
        result = process(records[start : start + size], registry, state, _MAX_BYTES)
        found |= outcomes_of(result, start)
        start += size
    return _Result(found, state.snapshot())


def _compared(one: _Result, other: _Result) -> str | None:
    # Compared as text, in which NaN equals NaN; numbers outside objects are compared by their bits.
    texts = [{row: repr(outcome) for row, outcome in each.outcomes.items()} for each in (one, other)]
    for row in sorted(texts[0].keys() | texts[1].keys()):
        if texts[0].get(row) != texts[1].get(row):
            shown = _differing(one.outcomes.get(row, ()), other.outcomes.get(row, ()))
            return f"row {row}\n  {shown[0]}\n  {shown[1]}"
    if one.snapshot != other.snapshot:
        return "snapshots"
    return None


def _differing(one: RowOutcome, other: RowOutcome) -> tuple[Any, Any]:
    """Return both outcomes, reduced to the differing columns if the row passed in both."""
    if not one or not other or one[:2] != other[:2] or one[0] != "passed":
        return one, other
    names = [name for name in one[2] | other[2] if repr(one[2].get(name)) != repr(other[2].get(name))]
    left, right = ({name: outcome[2].get(name) for name in names} for outcome in (one, other))
    return left, right


def _check_stored_rows(case: EventCase, payloads: Sequence[bytes], rng: random.Random) -> None:
    """Check that rows read back from Parquet do not depend on the split."""
    if len(case.events) > 1:
        return
    ((name, event),) = case.events.items()
    settings = {"max_record_bytes": _MAX_BYTES, "segment_records": rng.choice((2, 5, 1_000))}
    splits = ([len(payloads)], [1] * len(payloads), list(_sizes(len(payloads), rng)))
    whole, *others = (
        outcomes(
            payloads,
            event=event,
            schemas=case.schemas[name],
            splits=sizes,
            arrived=ARRIVED,
            settings=settings,
        )
        for sizes in splits
    )
    for other in others:
        for row, (one, two) in enumerate(zip(whole, other, strict=True)):
            assert repr(one) == repr(two), f"row {row} as stored\n  {one}\n  {two}\npayloads: {payloads!r}"


def shortest(given: Prepared, payloads: list[bytes], mismatch: str) -> tuple[list[bytes], str]:
    """Minimize the sequence: remove records while a difference remains."""
    at = 0
    while at < len(payloads) and len(payloads) > 1:
        fewer = payloads[:at] + payloads[at + 1 :]
        found = next(filter(None, (difference(given, fewer, seed) for seed in range(8))), None)
        if found:
            payloads, mismatch = fewer, found
        else:
            at += 1
    return payloads, mismatch
