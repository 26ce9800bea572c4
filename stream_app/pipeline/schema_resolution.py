"""From encoded rows to columns that follow the event's Avro schema, older and newer writers included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_app.model.record import Batch, Code, Failure, IntVector, Mask, Outcome
from stream_app.pipeline.decode import EncodedRows
from stream_app.pipeline.readers.columns import build, build_from
from stream_app.pipeline.readers.fast_path import detail_of, id_of
from stream_app.pipeline.registry import Codec
from stream_app.pipeline.user_code.user_calls import truncated
from stream_app.pipeline.values.schema import FLOAT, IDENTITY, SINGLE, TEXT
from stream_app.pipeline.values.violation import ViolationError

STAGE = "conform"
Values = list[Any]
Columns = dict[str, NDArray[Any]]


def resolve_schema(encoded: EncodedRows, codec: Codec, arrived: IntVector) -> Outcome:
    """Decode every body against the schema; `arrived` is of all records of the call, milliseconds since the epoch.

    What does not fit is a SCHEMA_VIOLATION; a required field that is absent or null is FIELD_MISSING. The batch
    has the schema's fields in order, and `arrived`.
    """
    fields, required = codec.schema.fields, codec.event.required
    usual = list(map(detail_of, encoded.usual)) if encoded.enveloped else encoded.usual
    rows = encoded.usual_rows
    failed: list[Failure] = []
    arrivals = arrived[rows]
    compared = arrivals if codec.event.reject_coarse_times else None
    columns, doubtful = build_from(usual, fields, required, compared)
    if encoded.enveloped and codec.event.id not in required:
        _add_ids(columns, encoded, codec)
    if encoded.rows or doubtful.any():
        found, failed = _read(encoded, codec, arrived)
        again, refused = _read_again(usual, np.flatnonzero(doubtful).tolist(), encoded, codec, arrived)
        found, missing = _required({**found, **again}, codec)
        failed += [*refused, *missing]
        more = build(list(found.values()), fields, required)
        rows, columns = _merged(rows, columns, ~doubtful, list(found), more)
        arrivals = arrived[rows]
    columns["arrived"] = arrivals.view("datetime64[ms]")
    return Outcome(Batch(codec.event.name, columns, rows), failed)


def _merged(
    rows: IntVector, columns: Columns, kept: Mask, more_rows: list[int], more: Columns
) -> tuple[IntVector, Columns]:
    """Rows of both in order: of the first those that are `kept`."""
    together = np.concatenate([rows[kept], np.array(more_rows, dtype=np.int64)])
    order = np.argsort(together)
    merged = {name: np.concatenate([column[kept], more[name]])[order] for name, column in columns.items()}
    return together[order], merged


def _add_ids(columns: Columns, encoded: EncodedRows, codec: Codec) -> None:
    """Where the device gave no id of its own, the bus's does."""
    field = next((field for field in codec.schema.fields if field.name == codec.event.id), None)
    if field is None or field.kind not in (TEXT, IDENTITY) or not encoded.usual:
        return
    own, given = columns[field.name].tolist(), map(id_of, encoded.usual)
    ids = [
        other if value in (None, "") and other is not None else value
        for value, other in zip(own, given, strict=True)
    ]
    columns[field.name] = np.fromiter(ids, dtype=object, count=len(ids))


def _arrival(codec: Codec, arrived: IntVector, row: int) -> int | None:
    return int(arrived[row]) if codec.event.reject_coarse_times else None


def _read_again(
    usual: Sequence[msgspec.Struct], places: list[int], encoded: EncodedRows, codec: Codec, arrived: IntVector
) -> tuple[dict[int, Values], list[Failure]]:
    """The values of some rows that were read at once, by row, their times read with care."""
    found: dict[int, Values] = {}
    failed: list[Failure] = []
    for at in places:
        row, values = int(encoded.usual_rows[at]), list(msgspec.structs.astuple(usual[at]))
        try:
            _read_times(values, codec, _arrival(codec, arrived, row))
        except ViolationError as error:
            failed.append(_failure(row, error, codec, None))
            continue
        given = encoded.enveloped and codec.event.id not in codec.event.required
        envelope_id = id_of(encoded.usual[at]) if given else None
        found[row] = values if envelope_id is None else _with_id(values, envelope_id, codec)
    return found, failed


def _read_times(values: Values, codec: Codec, arrived: int | None) -> None:
    for at, field, scalar in codec.times:
        value = values[at]
        if value is None:
            continue
        try:
            values[at] = (
                scalar.from_text(value, arrived)
                if isinstance(value, str)
                else scalar.from_avro(value, arrived)
            )
        except ViolationError as error:
            raise error.within(f".{field}") from None


def _read(encoded: EncodedRows, codec: Codec, arrived: IntVector) -> tuple[dict[int, Values], list[Failure]]:
    """The values of rows that were not read at once, by row."""
    found: dict[int, Values] = {}
    failed: list[Failure] = []
    for row, body, writer, envelope_id in zip(
        encoded.rows, encoded.bodies, encoded.writers, encoded.envelope_ids, strict=True
    ):
        try:
            read = codec.json.read if writer is None else codec.avro[writer.fingerprint]
            values = read(body, _arrival(codec, arrived, row))
        except Exception as error:  # whatever the bytes of one record bring about, its neighbours go on
            failed.append(_failure(row, error, codec, None if writer is None else writer.fingerprint))
            continue
        found[row] = values if envelope_id is None else _with_id(values, envelope_id, codec)
    return found, failed


def _failure(row: int, error: Exception, codec: Codec, writer: str | None) -> Failure:
    mark = writer or codec.schema.fingerprint
    if not isinstance(error, ViolationError):
        error = ViolationError("a record of the schema", f"one that cannot be read ({type(error).__name__})")
    stage = "decode" if error.code is Code.UNDECODABLE else STAGE
    return Failure(row, stage, error.code, truncated(str(error)), codec.event.name, mark)


def _with_id(values: Values, envelope_id: str, codec: Codec) -> Values:
    """Where the device gave no id of its own, the bus's does."""
    for at, field in enumerate(codec.schema.fields):
        if field.name == codec.event.id and values[at] in (None, "") and field.kind in (TEXT, IDENTITY):
            values[at] = envelope_id
    return values


def _required(found: dict[int, Values], codec: Codec) -> tuple[dict[int, Values], list[Failure]]:
    """Park rows without a required field under the stage that users know it by, verify.

    NaN is a missing number, and an empty id identifies nothing.
    """
    wanted = [
        (at, f.name, f.kind in (FLOAT, SINGLE), f.name == codec.event.id)
        for at, f in enumerate(codec.schema.fields)
        if f.name in codec.event.required
    ]
    kept: dict[int, Values] = {}
    failed: list[Failure] = []
    for row, values in found.items():
        missing = [
            name
            for at, name, real, identity in wanted
            if (value := values[at]) is None or (real and value != value) or (identity and value == "")
        ]
        if missing:
            reason, mark = ", ".join(missing), codec.schema.fingerprint
            failed.append(Failure(row, "verify", Code.FIELD_MISSING, reason, codec.event.name, mark))
        else:
            kept[row] = values
    return kept, failed
