"""Mutated records in sequences: what becomes of each does not depend on how the sequence is cut into calls."""

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
from tests.fuzz.split_worlds import ARRIVED, World, all_dependencies, without_fields
from tests.fuzz.watch import bounded
from tests.support import RowOutcome, outcomes_of

_MAX_BYTES = 3_000
_SEEN_IDS = 5
_MANY = 400


class Prepared(NamedTuple):
    """A registry, and the same without the fast path of `usual_form`."""

    registry: Registry
    careful: Registry


class _Result(NamedTuple):
    outcomes: dict[int, RowOutcome]
    snapshot: bytes


def fuzz(seed: int, count: int) -> None:
    """Try `count` records. Raises AssertionError, with a short sequence of them, where a property does not hold."""
    rng = random.Random(seed)
    done = 0
    while done < count:
        dependencies, found = rng.choice(_worlds())
        payloads = _sequence(dependencies, rng, min(rng.choice((2, 3, 8, 12, 40, _MANY)), count - done))
        with bounded(payloads, len(payloads)):
            wrong = difference(found, payloads, rng.randrange(2**32))
            if not wrong and len(payloads) < _MANY and rng.random() < 0.03:
                _stored_alike(dependencies, payloads, rng)
        if wrong:
            events = ", ".join(dependencies.events)
            payloads, wrong = shortest(found, payloads, wrong)
            raise AssertionError(f"{wrong}\nevents: {events}\npayloads: {payloads!r}")
        done += len(payloads)


def prepared(registry: Registry) -> Prepared:
    """Return both ways to read records of a registry's event types."""
    return Prepared(registry, replace(registry, fast_path=FastPath(())))


@cache
def _worlds() -> list[tuple[World, Prepared]]:
    return [(dependencies, prepared(dependencies.registry())) for dependencies in all_dependencies()]


def _sequence(dependencies: World, rng: random.Random, length: int) -> list[bytes]:
    base = [dependencies.payload(rng) for _ in range(length)]
    wild = rng.choice((0.0, 0.1, 0.5))
    return [_changed(data, rng, base) if rng.random() < wild else data for data in base]


def _changed(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    return without_fields(data) if rng.random() < 0.1 else mutated(data, rng, others)


def difference(given: Prepared, payloads: Sequence[bytes], seed: int) -> str | None:
    """Return what differs between one call, one record a call, a random split and the careful way of reading."""
    records = [record(data, at, arrived=ARRIVED + at) for at, data in enumerate(payloads)]
    whole = _run(records, [len(records)], given.registry)
    rng = random.Random(seed)
    others = {"a random split": (given.registry, list(_sizes(len(records), rng)))}
    if len(records) < _MANY:
        others["one by one"] = (given.registry, [1] * len(records))
    if len(records) == _MANY or rng.random() < 0.3:
        others["the careful way"] = (given.careful, [len(records)])
    for name, (registry, sizes) in others.items():
        other = _run(records, sizes, registry)
        if wrong := _compared(whole, other):
            return f"one call and {name} differ: {wrong}"
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
    # As text, in which NaN equals NaN; numbers outside objects are compared as bits.
    texts = [{row: repr(outcome) for row, outcome in each.outcomes.items()} for each in (one, other)]
    for row in sorted(texts[0].keys() | texts[1].keys()):
        if texts[0].get(row) != texts[1].get(row):
            shown = _differing(one.outcomes.get(row, ()), other.outcomes.get(row, ()))
            return f"row {row}\n  {shown[0]}\n  {shown[1]}"
    if one.snapshot != other.snapshot:
        return "the snapshots"
    return None


def _differing(one: RowOutcome, other: RowOutcome) -> tuple[Any, Any]:
    """Both outcomes, of rows that passed in both only the columns that differ."""
    if not one or not other or one[:2] != other[:2] or one[0] != "passed":
        return one, other
    names = [name for name in one[2] | other[2] if repr(one[2].get(name)) != repr(other[2].get(name))]
    left, right = ({name: outcome[2].get(name) for name in names} for outcome in (one, other))
    return left, right


def _stored_alike(dependencies: World, payloads: Sequence[bytes], rng: random.Random) -> None:
    """What is read back from Parquet does not depend on the split either."""
    if len(dependencies.events) > 1:
        return
    ((name, event),) = dependencies.events.items()
    settings = {"max_record_bytes": _MAX_BYTES, "segment_records": rng.choice((2, 5, 1_000))}
    splits = ([len(payloads)], [1] * len(payloads), list(_sizes(len(payloads), rng)))
    whole, *others = (
        outcomes(
            payloads,
            event=event,
            schemas=dependencies.schemas[name],
            splits=sizes,
            arrived=ARRIVED,
            settings=settings,
        )
        for sizes in splits
    )
    for other in others:
        for row, (one, two) in enumerate(zip(whole, other, strict=True)):
            assert repr(one) == repr(two), f"row {row} as stored\n  {one}\n  {two}\npayloads: {payloads!r}"


def shortest(given: Prepared, payloads: list[bytes], wrong: str) -> tuple[list[bytes], str]:
    """Leave out records as long as something still differs."""
    at = 0
    while at < len(payloads) and len(payloads) > 1:
        fewer = payloads[:at] + payloads[at + 1 :]
        found = next(filter(None, (difference(given, fewer, seed) for seed in range(8))), None)
        if found:
            payloads, wrong = fewer, found
        else:
            at += 1
    return payloads, wrong
