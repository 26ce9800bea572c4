"""From encoded rows to columns that follow the event's Avro schema, older and newer writers included."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import fastavro
import msgspec
import numpy as np

from stream_app.pipeline.columns import build, build_from
from stream_app.pipeline.decode import Encoded
from stream_app.pipeline.guard import short
from stream_app.pipeline.json_form import renamed
from stream_app.pipeline.registry import Codec
from stream_app.pipeline.schema import IDENTITY, TEXT, Json, NotAvroError, Schema, through_avro
from stream_app.pipeline.usual_form import detail_of, id_of
from stream_app.record import Batch, Code, Failure, IntVector, Outcome

STAGE = "conform"
_object = msgspec.json.Decoder(dict[str, Any])
_AVRO_TYPES = (bytes, datetime, date, time, Decimal, UUID)


def conform(encoded: Encoded, codec: Codec, arrived: IntVector) -> Outcome:
    """Decode every body against the schema; `arrived` is of all records of the call, milliseconds since the epoch.

    What does not fit is a SCHEMA_VIOLATION; a required field that is absent or null is FIELD_MISSING. The batch
    has the schema's fields in order, and `arrived`.
    """
    rows, values, failed = _read(encoded, codec)
    rows, values, missing = _required(rows, values, codec)
    usual = list(map(detail_of, encoded.usual)) if encoded.enveloped else encoded.usual
    if rows or (encoded.enveloped and codec.event.id not in codec.event.required):
        rows, values = _merged(encoded.usual_rows, _usual(usual, encoded, codec), rows, values)
        columns = build(values, codec.schema.fields, codec.event.required)
    else:
        rows = encoded.usual_rows
        columns = build_from(usual, codec.schema.fields, codec.event.required)
    at = np.array(rows, dtype=np.int64)
    columns["arrived"] = arrived[at].view("datetime64[ms]")
    return Outcome(Batch(codec.event.name, columns, at), [*failed, *missing])


def _usual(usual: Sequence[msgspec.Struct], encoded: Encoded, codec: Codec) -> list[tuple[Any, ...]]:
    """The values of rows that were read at once: required ones are there, and nothing has an older name."""
    values = list(map(msgspec.structs.astuple, usual))
    if not encoded.enveloped or codec.event.id in codec.event.required:
        return values
    ids = map(id_of, encoded.usual)
    return [v if name is None else _with_id(v, name, codec) for v, name in zip(values, ids, strict=True)]


def _merged(
    rows: list[int], values: list[tuple[Any, ...]], more: list[int], others: list[tuple[Any, ...]]
) -> tuple[list[int], list[tuple[Any, ...]]]:
    """Rows of both in order."""
    if not more:
        return rows, values
    both = dict(zip([*rows, *more], [*values, *others], strict=True))
    return sorted(both), [both[row] for row in sorted(both)]


def _read(encoded: Encoded, codec: Codec) -> tuple[list[int], list[tuple[Any, ...]], list[Failure]]:
    rows: list[int] = []
    values: list[tuple[Any, ...]] = []
    failed: list[Failure] = []
    decode, as_tuple = codec.decoder.decode, msgspec.structs.astuple
    simple = not codec.aliased and codec.nested is None
    for row, body, writer, envelope_id in zip(
        encoded.rows, encoded.bodies, encoded.writers, encoded.envelope_ids, strict=True
    ):
        try:
            if writer is not None:
                value = _from_avro(body, writer, codec)
            else:
                value = as_tuple(decode(body)) if simple else _from_json(body, codec)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, NotAvroError) as error:
            reason, mark = short(str(error)), (writer or codec.schema).fingerprint
            failed.append(Failure(row, STAGE, Code.SCHEMA_VIOLATION, reason, codec.event.name, mark))
            continue
        rows.append(row)
        values.append(value if envelope_id is None else _with_id(value, envelope_id, codec))
    return rows, values, failed


def _from_json(body: Any, codec: Codec) -> tuple[Any, ...]:
    item = codec.decoder.decode(body)
    value = msgspec.structs.astuple(_with_aliases(item, body, codec) if codec.aliased else item)
    return value if codec.nested is None else _through_avro(value, codec, codec.nested)


def _through_avro(value: tuple[Any, ...], codec: Codec, nested: Json) -> tuple[Any, ...]:
    """Columns of objects hold what Avro's reader would give, so that both forms of a record are the same."""
    named = {field.name: item for field, item in zip(codec.schema.fields, value, strict=True)}
    record = {
        field["name"]: msgspec.to_builtins(named[field["name"]], builtin_types=_AVRO_TYPES)
        for field in nested["fields"]
    }
    return tuple({**named, **through_avro(record, nested)}.values())


def _with_id(value: tuple[Any, ...], envelope_id: str, codec: Codec) -> tuple[Any, ...]:
    """Where the device gave no id of its own, the bus's does."""
    for at, field in enumerate(codec.schema.fields):
        if field.name == codec.event.id:
            given = value[at] is not None or field.kind not in (TEXT, IDENTITY)
            return value if given else (*value[:at], envelope_id, *value[at + 1 :])
    return value


def _with_aliases(item: Any, body: Any, codec: Codec) -> Any:
    unset = [field for field in codec.aliased if getattr(item, field.name) is msgspec.UNSET]
    if not unset:
        return item
    known = renamed(_object.decode(body), unset)
    for field in unset:
        if field.name not in known:
            if not (field.has_default or field.nullable or field.name in codec.event.required):
                raise msgspec.ValidationError(f"Object missing required field `{field.name}`")
            known[field.name] = None if field.name in codec.event.required else field.default
    return msgspec.convert(known, codec.struct)


def _from_avro(body: bytes, writer: Schema, codec: Codec) -> tuple[Any, ...]:
    stream, reader = io.BytesIO(body), None if writer is codec.schema else codec.reader
    try:
        record = fastavro.schemaless_reader(stream, writer.parsed, reader)
    except (
        Exception
    ) as error:  # fastavro raises many kinds on broken bytes (EOFError, IndexError, struct.error …)
        raise NotAvroError(f"not Avro of schema {writer.fingerprint}: {type(error).__name__}") from error
    if not isinstance(record, dict) or stream.tell() != len(body):
        raise NotAvroError(f"not Avro of schema {writer.fingerprint}: bytes are left over")
    return tuple(record[field.name] for field in codec.schema.fields)


def _required(
    rows: list[int], values: list[tuple[Any, ...]], codec: Codec
) -> tuple[list[int], list[tuple[Any, ...]], list[Failure]]:
    """Park rows without a required field under the stage that users know it by, verify."""
    wanted = [(at, f.name) for at, f in enumerate(codec.schema.fields) if f.name in codec.event.required]
    if all(value[at] is not None for value in values for at, _ in wanted):
        return rows, values, []
    kept_rows, kept, failed = [], [], []
    for row, value in zip(rows, values, strict=True):
        missing = [name for at, name in wanted if value[at] is None]
        if missing:
            reason, mark = ", ".join(missing), codec.schema.fingerprint
            failed.append(Failure(row, "verify", Code.FIELD_MISSING, reason, codec.event.name, mark))
        else:
            kept_rows.append(row)
            kept.append(value)
    return kept_rows, kept, failed
