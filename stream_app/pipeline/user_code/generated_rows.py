"""Rows of an event type, made up from its Avro schema: ordinary ones, with missing values, and extreme ones."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import numpy as np

from stream_app.model.record import Batch, IntVector
from stream_app.pipeline.decode import EncodedRows
from stream_app.pipeline.registry import Codec
from stream_app.pipeline.schema_resolution import resolve_schema
from stream_app.pipeline.state.key_index import KeyIndex
from stream_app.pipeline.state.previous_values import PreviousValues
from stream_app.pipeline.state.windows import Windows
from stream_app.pipeline.values.avro_types import DATE, INSTANT, LOCAL, TIME_OF_DAY, UUID, AvroType
from stream_app.pipeline.values.schema import TEXT, Field

ORDINARY, WITHOUT_OPTIONAL, EXTREME = 5, 4, 4
_START = datetime(2024, 1, 1, tzinfo=UTC)
_HOUR = timedelta(hours=1)
# How deep types that contain themselves are followed.
_DEEPEST = 4
_EXTREME_TIMES = (
    "1970-01-01T00:00:00Z",
    "1969-12-31T23:59:59.999Z",
    "9999-12-31T00:00:00Z",
    "0001-01-02T00:00:00Z",
)
_EXTREMES: Mapping[str, tuple[Any, ...]] = {
    "int": (0, -1, 2**31 - 1, -(2**31)),
    "long": (0, -1, 2**63 - 1, -(2**63)),
    "float": (0.0, -0.0, 3e38, -3e38),
    "double": (0.0, -0.0, 1.7e308, -1.7e308),
    "string": ("", "0", "\0é\U0001f600", "x" * 1_000),
    INSTANT: _EXTREME_TIMES,
    DATE: ("1970-01-01", "1969-12-31", "9999-12-31", "0001-01-01"),
    TIME_OF_DAY: ("00:00:00", "23:59:59.999", "12:00:00", "00:00:01"),
}


class NoValueError(Exception):
    """No value can be made up for a type."""


class GeneratedRows(NamedTuple):
    """Rows as `verify` gets them. The first `ordinary` of them have a value in every field, none of them extreme."""

    batch: Batch
    ordinary: int


def generate_rows(codec: Codec) -> GeneratedRows | None:
    """Up to 13 rows of two devices, the last ordinary one twice; None where none can be made up.

    They go through the schema as records do, so that columns have the types that they have in operation. What the
    schema refuses of the extreme values is left out.
    """
    turns = [*range(ORDINARY - 1), ORDINARY - 2, *range(ORDINARY, ORDINARY + WITHOUT_OPTIONAL + EXTREME)]
    try:
        bodies = [_body(codec, turn, number) for number, turn in enumerate(turns)]
    except NoValueError:
        return None
    for count in (len(bodies), ORDINARY + WITHOUT_OPTIONAL, ORDINARY):
        batch = _conformed(codec, bodies[:count])
        if batch is not None:
            ordinary = int((batch.rows < ORDINARY).sum())
            return GeneratedRows(_with_previous(codec, batch), ordinary) if ordinary else None
    return None


def with_windows(codec: Codec, batch: Batch) -> Batch:
    """The rows as `calculate` gets them."""
    window = codec.event.window
    if window is None:
        return batch
    columns = Windows(window).add(_numbers(codec, batch), batch)
    return batch.with_columns({name: np.ascontiguousarray(column) for name, column in columns.items()})


def _with_previous(codec: Codec, batch: Batch) -> Batch:
    if not codec.event.previous:
        return batch
    accepted = np.ones(len(batch), dtype=np.bool_)
    return batch.with_columns(
        PreviousValues(codec.event.previous).columns(_numbers(codec, batch), batch, accepted)
    )


def _numbers(codec: Codec, batch: Batch) -> IntVector:
    return KeyIndex().slots(batch[codec.event.key].tolist())


def _conformed(codec: Codec, bodies: list[bytes]) -> Batch | None:
    encoded = EncodedRows(codec.event.name)
    for row, body in enumerate(bodies):
        encoded.add(row, body, None, None)
    arrived = np.full(len(bodies), int((_START + 24 * _HOUR).timestamp() * 1_000), dtype=np.int64)
    try:
        return resolve_schema(encoded, codec, arrived).passed
    except Exception:  # an extreme value is not this check's to report
        return None


def _body(codec: Codec, turn: int, number: int) -> bytes:
    values: dict[str, Any] = {}
    for at, field in enumerate(codec.schema.fields):
        if field.name == codec.event.key:
            values[field.name] = _value(field.type, turn % 2)
        elif field.name == codec.event.id and field.kind == TEXT:
            values[field.name] = f"id {number}"
        elif not _is_missing(field, codec, turn, at):
            values[field.name] = _of_turn(field, codec, turn)
    return msgspec.json.encode(values)


def _is_missing(field: Field, codec: Codec, turn: int, at: int) -> bool:
    """Of the rows with missing values: two without any optional one, then without every other one."""
    optional = (field.nullable or field.has_default) and field.name not in codec.event.required
    if not optional or not ORDINARY <= turn < ORDINARY + WITHOUT_OPTIONAL:
        return False
    return turn < ORDINARY + 2 or (turn + at) % 2 == 0


def _of_turn(field: Field, codec: Codec, turn: int) -> Any:
    """A value of the field. The time of a window is never extreme: it places the row on a grid."""
    window = codec.event.window
    placed = window is not None and field.name == window.time
    extreme = turn - ORDINARY - WITHOUT_OPTIONAL
    if extreme >= 0 and not placed:
        return _extreme(field.type, extreme)
    return _value(field.type, turn)


def _extreme(avro: AvroType, number: int) -> Any:
    """An extreme value of a type; an ordinary one of a type that has none."""
    known = _EXTREMES.get(_branch(avro).logical_name)
    return _value(avro, number) if known is None else known[number]


def _branch(avro: AvroType) -> AvroType:
    """The type itself, of a union the first branch that is not null."""
    real = [branch for branch in avro.branches if branch.type != "null"]
    return real[0] if real else avro


def _value(avro: AvroType, turn: int, depth: int = 0) -> Any:
    """An ordinary value of a type, as JSON has it. Raises NoValueError where none is known.

    Where a type may contain itself, an optional value ends what would have no end.
    """
    if depth > _DEEPEST:
        if avro.nullable:
            return None
        raise NoValueError(str(avro))
    branch = _branch(avro)
    at = _START + turn * _HOUR
    values: dict[str, Any] = {
        "null": None,
        "boolean": turn % 2 == 0,
        "int": turn + 1,
        "long": turn + 1,
        "float": turn + 0.5,
        "double": turn + 0.5,
        "string": f"text {turn}",
        "bytes": _base64(b"bytes"),
        INSTANT: at.isoformat(),
        LOCAL: at.replace(tzinfo=None).isoformat(),
        DATE: (date(2024, 1, 1) + timedelta(days=turn)).isoformat(),
        TIME_OF_DAY: clock(turn % 24).isoformat(),
        UUID: str(uuid.UUID(int=turn + 1)),
        "fixed": _base64(bytes(branch.size)),
    }
    if branch.logical_name in values:
        return values[branch.logical_name]
    return _complex(branch, turn, depth + 1)


def _complex(avro: AvroType, turn: int, depth: int) -> Any:
    match avro.logical_name:
        case "decimal":
            return str(Decimal(turn % 9 + 1).scaleb(-avro.logical.unit if avro.logical else 0))
        case "enum" if avro.symbols:
            return avro.symbols[turn % len(avro.symbols)]
        case "array" if avro.items is not None:
            return [] if depth > _DEEPEST else [_value(avro.items, turn, depth)]
        case "map" if avro.items is not None:
            return {} if depth > _DEEPEST else {"a": _value(avro.items, turn, depth)}
        case "record" | "error":
            return {item.name: _value(item.type, turn, depth) for item in avro.fields}
        case other:
            raise NoValueError(other)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
