"""The schema resolution stage: encoded rows become columns of the event's reader schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from anomaly.detector import AnyArray
from stream_app.model.record import Batch, Code, Failure, IntVector, Mask, Outcome
from stream_app.pipeline.decode import EncodedRows
from stream_app.pipeline.readers.columns import build, build_from
from stream_app.pipeline.readers.fast_path import detail_of, id_of
from stream_app.pipeline.registry import Codec
from stream_app.pipeline.user_code.user_calls import truncated
from stream_app.pipeline.values.schema import FLOAT, IDENTITY, SINGLE, TEXT
from stream_app.pipeline.values.violation import ViolationError

STAGE = "conform"
# One row's values, of the types of its fields.
Values = list[Any]
Columns = dict[str, AnyArray]


def resolve_schema(encoded: EncodedRows, codec: Codec, arrived: IntVector) -> Outcome:
    """Decode the bodies of one event type with its reader schema, and resolve those of other writer schemas.

    `arrived` has the arrivals of all records of the call in milliseconds since the epoch. A body that does not match
    fails as SCHEMA_VIOLATION, an absent or null required field as FIELD_MISSING. The batch has the schema's fields in
    order, then the column `arrived`.
    """
    fields, required = codec.schema.fields, codec.event.required
    structs = list(map(detail_of, encoded.fast_structs)) if encoded.enveloped else encoded.fast_structs
    rows = encoded.fast_rows
    failed: list[Failure] = []
    arrivals = arrived[rows]
    compared = arrivals if codec.event.reject_coarse_times else None
    columns, doubtful = build_from(structs, fields, required, compared)
    if encoded.enveloped and codec.event.id not in required:
        _add_ids(columns, encoded, codec)
    if encoded.rows or doubtful.any():
        found, failed = _read(encoded, codec, arrived)
        again, rejected = _reread(structs, np.flatnonzero(doubtful).tolist(), encoded, codec, arrived)
        found, missing = _required({**found, **again}, codec)
        failed += [*rejected, *missing]
        more = build(list(found.values()), fields, required)
        rows, columns = _merged(rows, columns, ~doubtful, list(found), more)
        arrivals = arrived[rows]
    columns["arrived"] = arrivals.view("datetime64[ms]")
    return Outcome(Batch(codec.event.name, columns, rows), failed)


def _merged(
    rows: IntVector, columns: Columns, kept: Mask, more_rows: list[int], more: Columns
) -> tuple[IntVector, Columns]:
    """Merge the `kept` rows of the first columns with the rows of the second, in the order of their numbers."""
    together = np.concatenate([rows[kept], np.array(more_rows, dtype=np.int64)])
    order = np.argsort(together)
    merged = {name: np.concatenate([column[kept], more[name]])[order] for name, column in columns.items()}
    return together[order], merged


def _add_ids(columns: Columns, encoded: EncodedRows, codec: Codec) -> None:
    """Use the id of the event bus envelope for rows without an id of their own."""
    field = next((field for field in codec.schema.fields if field.name == codec.event.id), None)
    if field is None or field.kind not in (TEXT, IDENTITY) or not encoded.fast_structs:
        return
    own, given = columns[field.name].tolist(), map(id_of, encoded.fast_structs)
    ids = [
        other if value in (None, "") and other is not None else value
        for value, other in zip(own, given, strict=True)
    ]
    columns[field.name] = np.fromiter(ids, dtype=object, count=len(ids))


def _arrival(codec: Codec, arrived: IntVector, row: int) -> int | None:
    return int(arrived[row]) if codec.event.reject_coarse_times else None


def _reread(
    structs: Sequence[msgspec.Struct],
    places: list[int],
    encoded: EncodedRows,
    codec: Codec,
    arrived: IntVector,
) -> tuple[dict[int, Values], list[Failure]]:
    """Read the times of some rows of the fast path again with full checks; return values by source row."""
    found: dict[int, Values] = {}
    failed: list[Failure] = []
    for at in places:
        row, values = int(encoded.fast_rows[at]), list(msgspec.structs.astuple(structs[at]))
        try:
            _read_times(values, codec, _arrival(codec, arrived, row))
        except ViolationError as error:
            failed.append(_failure(row, error, codec, None))
            continue
        given = encoded.enveloped and codec.event.id not in codec.event.required
        envelope_id = id_of(encoded.fast_structs[at]) if given else None
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
    """Read the rows that are not of the fast path; return values by source row."""
    found: dict[int, Values] = {}
    failed: list[Failure] = []
    for row, body, writer, envelope_id in zip(
        encoded.rows, encoded.bodies, encoded.writers, encoded.envelope_ids, strict=True
    ):
        try:
            read = codec.json.read if writer is None else codec.avro[writer.fingerprint]
            values = read(body, _arrival(codec, arrived, row))
        except Exception as error:  # no error of one record may affect others
            failed.append(_failure(row, error, codec, None if writer is None else writer.fingerprint))
            continue
        found[row] = values if envelope_id is None else _with_id(values, envelope_id, codec)
    return found, failed


def _failure(row: int, error: Exception, codec: Codec, writer: str | None) -> Failure:
    fingerprint = writer or codec.schema.fingerprint
    if not isinstance(error, ViolationError):
        error = ViolationError("a record of the schema", f"one that cannot be read ({type(error).__name__})")
    stage = "decode" if error.code is Code.UNDECODABLE else STAGE
    return Failure(row, stage, error.code, truncated(str(error)), codec.event.name, fingerprint)


def _with_id(values: Values, envelope_id: str, codec: Codec) -> Values:
    """Use the id of the event bus envelope for rows without an id of their own."""
    for at, field in enumerate(codec.schema.fields):
        if field.name == codec.event.id and values[at] in (None, "") and field.kind in (TEXT, IDENTITY):
            values[at] = envelope_id
    return values


def _required(found: dict[int, Values], codec: Codec) -> tuple[dict[int, Values], list[Failure]]:
    """Fail rows without a required field, with the stage `verify`, whose contract includes `required`.

    NaN counts as a missing number, and an empty text as a missing id.
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
            reason, fingerprint = ", ".join(missing), codec.schema.fingerprint
            failed.append(Failure(row, "verify", Code.FIELD_MISSING, reason, codec.event.name, fingerprint))
        else:
            kept[row] = values
    return kept, failed
