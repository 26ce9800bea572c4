"""One stored row again, from its original payload: first as it was stored, to the last bit, then corrected.

That the first comes out right is the proof that its device's past was put together right; only then is the second
believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stream_app.pipeline.calculate import calculate
from stream_app.pipeline.conform import conform
from stream_app.pipeline.decode import decode
from stream_app.pipeline.devices import Devices
from stream_app.pipeline.memory import Previous
from stream_app.pipeline.registry import Codec, Registry
from stream_app.pipeline.rules import FLAG
from stream_app.pipeline.user_calls import is_interrupt
from stream_app.pipeline.verify import verify
from stream_app.pipeline.windows import Windows
from stream_app.record import EXACT, Batch, Failure, Record
from stream_app.records import Records
from stream_app.sinks.columns import column_types
from stream_app.sinks.parquet import to_table


class ImpossibleError(Exception):
    """No correction can be made of this; people must look. The message says why, without payloads."""


class Past(NamedTuple):
    """The device's earlier rows in order, fields of the schema only: as they were first stored, and as they are."""

    original: Batch | None
    current: Batch | None


class Recalculated(NamedTuple):
    """One row as tables of one row, without identity, score, anomaly and flag: as it was stored, and corrected."""

    before: pa.Table
    after: pa.Table


def decoded(record: Record, event: str, registry: Registry, max_bytes: int) -> Batch:
    """The record's fields as a batch of one row. Raises ImpossibleError when it is not of the event."""
    records = Records.of([record])
    encoded, failed = decode(records.payloads, registry, max_bytes)
    if event not in encoded:
        raise ImpossibleError(f"its payload is no {event}" + _why(failed))
    outcome = conform(encoded[event], registry.codecs[event], records.arrived)
    if not len(outcome.passed):
        raise ImpossibleError("its payload does not conform" + _why(outcome.failed))
    return outcome.passed


def recalculated(
    fields: Batch, record: Record, shard: str, flag: str | None, past: Past, codec: Codec
) -> Recalculated:
    """The row from its own fields, and the row with what the event's `correct` replaces.

    `flag` is the check that the row tripped, `past` what the device sent before it. Raises ImpossibleError when
    no correction is declared, when it changes nothing, or when the corrected row breaks a rule.
    """
    before = _table(_through(fields, past.original, codec), record, shard, codec)
    corrected = fields.with_columns(_replaced(fields, flag, codec))
    after = _table(_through(corrected, past.current, codec), record, shard, codec)
    if corrected.columns.keys() != fields.columns.keys() or not _differ(fields, corrected):
        raise ImpossibleError("the declared correction changes nothing")
    return Recalculated(before, after)


def _replaced(fields: Batch, flag: str | None, codec: Codec) -> Mapping[str, NDArray[Any]]:
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


def _through(fields: Batch, past: Batch | None, codec: Codec) -> Batch:
    """The stages from verify to calculate, with the past that the device had then."""
    event, batch, devices = codec.event, fields, Devices()
    device = devices.numbers(batch[event.key].tolist())
    if event.previous:
        previous = Previous(event.previous)
        if past is not None:
            previous.remember(devices.numbers(past[event.key].tolist()), past)
        batch = batch.with_columns(previous.recall(device, batch, np.ones(1, dtype=np.bool_)))
    verified = verify(batch, codec)
    if not len(verified.passed):
        raise ImpossibleError("it breaks a rule" + _why(verified.failed))
    batch = verified.passed
    if event.window is not None:
        windows = Windows(event.window)
        if past is not None:
            windows.recall(devices.numbers(past[event.key].tolist()), past)
        batch = batch.with_columns(windows.recall(device, batch))
    calculated = calculate(batch, codec)
    if not len(calculated.passed):
        raise ImpossibleError("it cannot be calculated" + _why(calculated.failed))
    return calculated.passed


def _table(batch: Batch, record: Record, shard: str, codec: Codec) -> pa.Table:
    table, refused = to_table(batch, [record], shard, column_types(codec.schema.fields))
    if refused:
        raise ImpossibleError("it has no form in Parquet")
    return table


def _differ(one: Batch, other: Batch) -> bool:
    return any(not _alike(one[name][0], other[name][0]) for name in one.columns)


def _alike(one: Any, other: Any) -> bool:
    return bool(one == other or (one != one and other != other))


def _why(failed: list[Failure] | Any) -> str:
    """Codes and names of rules; a schema's reason may quote the payload and is left out."""
    return "".join(
        f": {failure.reason}" if failure.code == "RULE_BROKEN" else f": {failure.code}"
        for failure in failed[:1]
    )
