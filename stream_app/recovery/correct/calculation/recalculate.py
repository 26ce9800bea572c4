"""Stored rows again, from their original payloads: first as they were stored, to the last bit, then corrected.

That the first comes out right is the proof that its device's past was put together right; only then is the second
believed. Several rows are calculated together, each with a past of its own, as if each were of another device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stream_app.model.record import EXACT, Batch, Failure, IntVector, Record
from stream_app.model.records import Records
from stream_app.pipeline.calculate import calculate
from stream_app.pipeline.decode import decode
from stream_app.pipeline.registry import Codec, Registry
from stream_app.pipeline.schema_resolution import resolve_schema
from stream_app.pipeline.sensor_checks import FLAG
from stream_app.pipeline.state.previous_values import PreviousValues
from stream_app.pipeline.state.windows import Windows
from stream_app.pipeline.user_code.user_calls import is_interrupt
from stream_app.pipeline.verify import verify
from stream_app.sinks.columns import column_types
from stream_app.sinks.parquet import to_table


class ImpossibleError(Exception):
    """No correction can be made of this; people must look. The message says why, without payloads."""


class Past(NamedTuple):
    """Earlier rows in order, fields of the schema only; `owners` are the rows of the batch whose past they are."""

    batch: Batch | None
    owners: IntVector


class Calculated(NamedTuple):
    """Rows as a table, without score, anomaly and flag: row i of the batch is row `at[i]` of it.

    `failed` says of every other row why it cannot be calculated.
    """

    table: pa.Table
    at: Mapping[int, int]
    failed: Mapping[int, str]


def decoded(records: Sequence[Record], event: str, registry: Registry, max_bytes: int) -> list[Batch | str]:
    """Each record's fields as a batch of one row, or why it is not of the event."""
    together = Records.of(list(records))
    encoded, failed = decode(together.payloads, registry, max_bytes)
    reasons = {failure.row: f"its payload is no {event}" + _why([failure]) for failure in failed}
    found: dict[int, Batch] = {}
    if event in encoded:
        outcome = resolve_schema(encoded[event], registry.codecs[event], together.arrived)
        reasons |= {f.row: "its payload does not conform" + _why([f]) for f in outcome.failed}
        for at, row in enumerate(outcome.passed.rows.tolist()):
            one = outcome.passed.take(np.array([at]))
            found[row] = Batch(event, one.columns, np.zeros(1, dtype=np.int64))
    other = f"its payload is no {event}"
    return [found[row] if row in found else reasons.get(row, other) for row in range(len(records))]


def replacements(fields: Batch, flag: str | None, codec: Codec) -> Mapping[str, NDArray[Any]]:
    """What the event's `correct` replaces of a row, columns of one value; `flag` is the check that the row tripped.

    Raises ImpossibleError when no correction is declared, and when it replaces what it may not.
    """
    event = codec.event
    if event.correct is None:
        raise ImpossibleError(f"event {event.name} declares no correction")
    try:
        columns = event.correct(fields.with_columns({FLAG: np.array([flag], dtype=object)}))
        made = {name: np.asarray(column) for name, column in columns.items()}
        known = {field.name for field in codec.schema.fields} - {event.key, event.id}
        if foreign := sorted(made.keys() - known):
            raise ImpossibleError(f"the declared correction replaces {', '.join(foreign)}")
        replaced = {name: column.astype(fields[name].dtype).reshape(1) for name, column in made.items()}
        return {**replaced, **_exact(replaced, fields)}
    except ImpossibleError:
        raise
    except BaseException as error:  # whatever a user's code raises is a fact about the data
        if is_interrupt(error):
            raise
        raise ImpossibleError(f"the declared correction raises {type(error).__name__}") from error


def _exact(replaced: Mapping[str, NDArray[Any]], fields: Batch) -> dict[str, NDArray[Any]]:
    """The columns that hold whole numbers and booleans as they are, for those of them that are replaced."""
    found = {}
    for name, column in replaced.items():
        if EXACT + name not in fields:
            continue
        values = np.where(np.isnan(column), 0, column)
        found[EXACT + name] = values.astype(fields[EXACT + name].dtype)
        if (found[EXACT + name] != values).any():
            raise ImpossibleError(f"the declared correction gives {name} a value that is not of its type")
    return found


def differs(fields: Batch, replaced: Mapping[str, NDArray[Any]]) -> bool:
    """Whether a replacement changes anything."""
    return any(not _alike(fields[name][0], column[0]) for name, column in replaced.items())


def calculated(fields: Batch, records: Sequence[Record], shard: str, past: Past, codec: Codec) -> Calculated:
    """Rows through the stages from verify to calculate, each with the past that its device had then.

    Row i of `fields` is of record i.
    """
    reasons: dict[int, str] = {}
    batch = _through(fields, past, codec, reasons)
    if not len(batch):
        return Calculated(pa.table({}), {}, reasons)
    table, refused = to_table(batch, records, shard, column_types(codec.schema.fields))
    reasons |= {failure.row: "it has no form in Parquet" for failure in refused}
    kept = [row for row in batch.rows.tolist() if row not in reasons]
    return Calculated(table, {row: at for at, row in enumerate(kept)}, reasons)


def _through(fields: Batch, past: Past, codec: Codec, reasons: dict[int, str]) -> Batch:
    event, batch = codec.event, fields
    if event.previous:
        previous = PreviousValues(event.previous)
        if past.batch is not None:
            previous.remember(past.owners, past.batch)
        every = np.ones(len(batch), dtype=np.bool_)
        batch = batch.with_columns(previous.recall(batch.rows, batch, every))
    verified = verify(batch, codec)
    reasons |= {failure.row: "it breaks a rule" + _why([failure]) for failure in verified.failed}
    batch = verified.passed
    if not len(batch):
        return batch
    if event.window is not None:
        windows = Windows(event.window)
        if past.batch is not None:
            windows.recall(past.owners, past.batch)
        batch = batch.with_columns(windows.recall(batch.rows, batch))
    done = calculate(batch, codec)
    reasons |= {failure.row: "it cannot be calculated" + _why([failure]) for failure in done.failed}
    return done.passed


def _alike(one: Any, other: Any) -> bool:
    return bool(one == other or (one != one and other != other))


def _why(failed: list[Failure] | Any) -> str:
    """Codes and names of rules; a schema's reason may quote the payload and is left out."""
    return "".join(
        f": {failure.reason}" if failure.code == "RULE_BROKEN" else f": {failure.code}"
        for failure in failed[:1]
    )
