"""Recalculates stored rows from their original payloads.

Each row is calculated twice: first as it was stored, then corrected. If the first result equals the stored row bit
by bit, its device's past was reconstructed correctly, and the second result can be used. Several rows are
calculated together, each with a past of its own, as if each were from a different device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from anomaly.detector import AnyArray
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


class UncorrectableError(Exception):
    """The record cannot be corrected and needs manual handling.

    The message gives the reason, without payloads.
    """


class Past(NamedTuple):
    """The earlier rows in order, with the fields of the schema only.

    `owners` holds, for each of them, the row of the batch to whose past it belongs.
    """

    batch: Batch | None
    owners: IntVector


class Recalculated(NamedTuple):
    """The recalculated rows as a table, without score, anomaly and flag.

    Row i of the batch is row `at[i]` of the table. `failed` holds the reason for each row that could not be
    calculated.
    """

    table: pa.Table
    at: Mapping[int, int]
    failed: Mapping[int, str]


def decode_payloads(
    records: Sequence[Record], event: str, registry: Registry, max_bytes: int
) -> list[Batch | str]:
    """Return each record's fields as a batch of one row, or why it is not a valid event."""
    together = Records.of(list(records))
    encoded, failed = decode(together.payloads, registry, max_bytes)
    reasons = {failure.row: f"its payload is not a valid {event}" + _reason([failure]) for failure in failed}
    found: dict[int, Batch] = {}
    if event in encoded:
        outcome = resolve_schema(encoded[event], registry.codecs[event], together.arrived)
        reasons |= {f.row: "its payload does not conform" + _reason([f]) for f in outcome.failed}
        for at, row in enumerate(outcome.passed.rows.tolist()):
            one = outcome.passed.take(np.array([at]))
            found[row] = Batch(event, one.columns, np.zeros(1, dtype=np.int64))
    other = f"its payload is not a valid {event}"
    return [found[row] if row in found else reasons.get(row, other) for row in range(len(records))]


def replacement_columns(fields: Batch, flag: str | None, codec: Codec) -> Mapping[str, AnyArray]:
    """Return what the event's `correct` replaces in a row, as columns of one value.

    `flag` is the check that flagged the row. Raises UncorrectableError when the event declares no correction, or
    when the correction replaces a field that it may not.
    """
    event = codec.event
    if event.correct is None:
        raise UncorrectableError(f"event {event.name} declares no correction")
    try:
        columns = event.correct(fields.with_columns({FLAG: np.array([flag], dtype=object)}))
        returned = {name: np.asarray(column) for name, column in columns.items()}
        known = {field.name for field in codec.schema.fields} - {event.key, event.id}
        if foreign := sorted(returned.keys() - known):
            raise UncorrectableError(
                f"the declared correction replaces fields that it may not: {', '.join(foreign)}"
            )
        replaced = {name: column.astype(fields[name].dtype).reshape(1) for name, column in returned.items()}
        return {**replaced, **_exact(replaced, fields)}
    except UncorrectableError:
        raise
    except BaseException as error:  # any error of user code is a fact about the data
        if is_interrupt(error):
            raise
        raise UncorrectableError(f"the declared correction raises {type(error).__name__}") from error


def _exact(replaced: Mapping[str, AnyArray], fields: Batch) -> dict[str, AnyArray]:
    """Return the replaced columns' exact companions, which hold integers and booleans."""
    found = {}
    for name, column in replaced.items():
        if EXACT + name not in fields:
            continue
        values = np.where(np.isnan(column), 0, column)
        found[EXACT + name] = values.astype(fields[EXACT + name].dtype)
        if (found[EXACT + name] != values).any():
            raise UncorrectableError(
                f"the declared correction returns a value for {name} that does not fit its type"
            )
    return found


def changes_values(fields: Batch, replaced: Mapping[str, AnyArray]) -> bool:
    """Return whether a replacement changes any value."""
    return any(not _equal(fields[name][0], column[0]) for name, column in replaced.items())


def recalculate(
    fields: Batch, records: Sequence[Record], shard: str, past: Past, codec: Codec
) -> Recalculated:
    """Run rows through the stages from verify to calculate, each with its device's past.

    Row i of `fields` is from record i.
    """
    reasons: dict[int, str] = {}
    batch = _run_stages(fields, past, codec, reasons)
    if not len(batch):
        return Recalculated(pa.table({}), {}, reasons)
    table, refused = to_table(batch, records, shard, column_types(codec.schema.fields))
    reasons |= {failure.row: "it cannot be stored as Parquet" for failure in refused}
    kept = [row for row in batch.rows.tolist() if row not in reasons]
    return Recalculated(table, {row: at for at, row in enumerate(kept)}, reasons)


def _run_stages(fields: Batch, past: Past, codec: Codec, reasons: dict[int, str]) -> Batch:
    event, batch = codec.event, fields
    if event.previous:
        previous = PreviousValues(event.previous)
        if past.batch is not None:
            previous.update(past.owners, past.batch)
        every = np.ones(len(batch), dtype=np.bool_)
        batch = batch.with_columns(previous.columns(batch.rows, batch, every))
    verified = verify(batch, codec)
    reasons |= {failure.row: "it breaks a rule" + _reason([failure]) for failure in verified.failed}
    batch = verified.passed
    if not len(batch):
        return batch
    if event.window is not None:
        windows = Windows(event.window)
        if past.batch is not None:
            windows.add(past.owners, past.batch)
        batch = batch.with_columns(windows.add(batch.rows, batch))
    done = calculate(batch, codec)
    reasons |= {failure.row: "it cannot be calculated" + _reason([failure]) for failure in done.failed}
    return done.passed


def _equal(one: object, other: object) -> bool:
    return bool(one == other or (one != one and other != other))


def _reason(failed: Sequence[Failure]) -> str:
    """Return the code, or the name of the broken rule, of the first failure.

    The reasons of other failures are omitted because they may quote the payload.
    """
    return "".join(
        f": {failure.reason}" if failure.code == "RULE_BROKEN" else f": {failure.code}"
        for failure in failed[:1]
    )
