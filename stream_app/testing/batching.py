"""Checks that an event type's own functions give the same results however its rows come in batches."""

from __future__ import annotations

import copy
import functools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stream_app.model.event import Event
from stream_app.model.record import Batch, Record
from stream_app.pipeline.flow import Processed, process
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.sinks.columns import AnyArray
from stream_app.testing.pipeline_run import MAX_BYTES, plain_records, registry_of

_SEEN_IDS = 256
_ABSENT = "absent"
_RANDOM_SPLITS = 10
_ALL_CUTS = 20  # rows up to which every single cut into two batches is tried

_Function = Callable[[Batch], Mapping[str, AnyArray]]
_Values = dict[str, object]


class CheckError(AssertionError):
    """A function of an event type depends on how rows come in batches, or modifies its input.

    `row` counts the rows that were given, `column` names what differs (None: whether the row is stored at all), and
    `values` are the value in one batch of all rows and the differing one.
    """

    def __init__(self, message: str, row: int, column: str | None, values: tuple[Any, Any]) -> None:
        super().__init__(message)
        self.row, self.column, self.values = row, column, values


def check(
    event: Event,
    rows: Sequence[Mapping[str, Any]],
    *,
    schema: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> None:
    """Check that `verify`, `calculate` and the detector do not depend on how rows come in batches.

    How Kinesis cuts a shard's records into batches changes from one reading to the next, and results must not change
    with it. The rows (an event's fields, JSON values) are processed in one batch, one by one, and in other splits, by
    `seed`; every row must come out the same, to the last bit. The functions must leave their input as it is.

    Rows should resemble real ones: several devices, several rows of each, missing values, rows that break a rule.
    The schema is `schemas/<event>.avsc` unless it is given. Raises CheckError, which names the row, the column and
    both values, and ConfigError when event and schema disagree.

    >>> from stream_app.events.parcel import EVENT
    >>> check(EVENT, [{"id": "1", "parcel": "p", "status": "picked_up", "time": 1700000000000}])
    """
    if not rows:
        raise ValueError("there are no rows to check with")
    changed: list[str] = []
    watched = replace(
        event,
        verify=event.verify and _watched("verify", event.verify, changed),
        calculate=event.calculate and _watched("calculate", event.calculate, changed),
    )
    # What a dry run would refuse is reported for the rows that were given.
    registry, records = registry_of(watched, schema, dry_run=False), plain_records(event, rows)
    whole = _results(registry, records, [len(records)], changed)
    for name, sizes in _splits(len(records), random.Random(seed)):
        _compare(whole, _results(registry, records, sizes, changed), name)


def _splits(count: int, rng: random.Random) -> Iterator[tuple[str, list[int]]]:
    yield "one by one", [1] * count
    if count <= _ALL_CUTS:
        yield from ((f"cut before row {at}", [at, count - at]) for at in range(1, count))
    for _ in range(_RANDOM_SPLITS if count > 2 else 0):
        sizes: list[int] = []
        while (left := count - sum(sizes)) > 0:
            sizes.append(rng.randint(1, left))
        yield f"in batches of {', '.join(map(str, sizes))}", sizes


def _results(
    registry: Registry, records: Sequence[Record], sizes: Sequence[int], changed: list[str]
) -> list[_Values | str]:
    """For each row its columns, or a text that says why there are none."""
    ((name, codec),) = registry.codecs.items()
    state = ShardState({name: codec.event}, _SEEN_IDS)
    found: dict[int, _Values | str] = {}
    start = 0
    for size in sizes:
        found |= _of_batch(process(records[start : start + size], registry, state, MAX_BYTES), start)
        start += size
        if changed:
            raise CheckError(changed[0], start - size, None, ("", ""))
    return [found[row] for row in range(len(records))]


def _of_batch(result: Processed, start: int) -> dict[int, _Values | str]:
    found: dict[int, _Values | str] = {start + row: "repeated" for row in result.repeated.tolist()}
    for failure in result.failed:
        if "read-only" in failure.reason:
            raise CheckError(
                f"row {start + failure.row}: {failure.stage} modifies its input: {failure.reason}",
                start + failure.row,
                None,
                ("", ""),
            )
        found[start + failure.row] = f"parked ({failure.code} in {failure.stage}: {failure.reason})"
    for batch in result.passed.values():
        for at, row in enumerate(batch.rows.tolist()):
            found[start + row] = {name: column[at] for name, column in batch.columns.items()}
    return found


def _compare(whole: Sequence[_Values | str], other: Sequence[_Values | str], name: str) -> None:
    for row, (one, two) in enumerate(zip(whole, other, strict=True)):
        if isinstance(one, str) or isinstance(two, str):
            texts = tuple(given if isinstance(given, str) else "stored" for given in (one, two))
            if texts[0] != texts[1]:
                raise _difference(row, None, (texts[0], texts[1]), name)
            continue
        for column in sorted(one.keys() | two.keys()):
            values = one.get(column, _ABSENT), two.get(column, _ABSENT)
            if _bits(values[0]) != _bits(values[1]):
                raise _difference(row, column, values, name)


def _difference(row: int, column: str | None, values: tuple[object, object], name: str) -> CheckError:
    shown = [_shown(value) for value in values] if column else values
    what = f"row {row}, column {column!r}" if column else f"row {row}"
    return CheckError(
        f"{what}: {shown[0]} in one batch of all rows, {shown[1]} {name}. A row's result may depend on the row's own "
        "columns alone (its window and previous values included), not on other rows of the batch",
        row,
        column,
        values,
    )


def _bits(value: object) -> tuple[str, object]:
    """A value with its type, so that equal ones compare equal; NaN equals NaN."""
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in "OU":
        return value.dtype.str, value.tobytes()
    return type(value).__name__, repr(value)


def _shown(value: object) -> str:
    if isinstance(value, np.generic | np.ndarray):
        return f"{value.tolist()!r} ({value.dtype})"
    return value if value is _ABSENT else f"{value!r} ({type(value).__name__})"


def _watched(name: str, function: _Function, changed: list[str]) -> _Function:
    """The function, with a note in `changed` where it modifies its input."""

    @functools.wraps(function)
    def watching(batch: Batch) -> Mapping[str, AnyArray]:
        before = {column: copy.deepcopy(values) for column, values in batch.columns.items()}
        try:
            return function(batch)
        finally:
            changed.extend(
                f"{name} modifies its input, the column {column!r}: copy what is to be changed"
                for column, values in before.items()
                if _bits_of_column(values) != _bits_of_column(batch[column])
            )

    return watching


def _bits_of_column(column: AnyArray) -> str | bytes:
    return repr(column.tolist()) if column.dtype.kind == "O" else column.tobytes()
