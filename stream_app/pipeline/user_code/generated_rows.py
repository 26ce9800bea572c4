"""Generates rows of an event type from its Avro schema: ordinary values, missing values and extreme values."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from decimal import Decimal
from typing import NamedTuple

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
# The depth to which recursive types are generated.
_MAX_DEPTH = 4
_EXTREME_TIMES = (
    "1970-01-01T00:00:00Z",
    "1969-12-31T23:59:59.999Z",
    "9999-12-31T00:00:00Z",
    "0001-01-02T00:00:00Z",
)
_EXTREMES: Mapping[str, tuple[object, ...]] = {
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
    """No value can be generated for a type."""


class GeneratedRows(NamedTuple):
    """Rows as `verify` receives them. The first `ordinary` rows have an ordinary value in every field."""

    batch: Batch
    ordinary: int


def generate_rows(codec: Codec) -> GeneratedRows | None:
    """Generate up to 13 rows of two devices, the last ordinary one twice; return None if it is not possible.

    The rows pass through schema resolution like records, so that the columns have the same types as in operation. If
    the schema rejects an extreme value, the rows with extreme values are left out.
    """
    variants = [*range(ORDINARY - 1), ORDINARY - 2, *range(ORDINARY, ORDINARY + WITHOUT_OPTIONAL + EXTREME)]
    try:
        bodies = [_encode_row(codec, variant, number) for number, variant in enumerate(variants)]
    except NoValueError:
        return None
    for count in (len(bodies), ORDINARY + WITHOUT_OPTIONAL, ORDINARY):
        batch = _resolve(codec, bodies[:count])
        if batch is not None:
            ordinary = int((batch.rows < ORDINARY).sum())
            return GeneratedRows(_with_previous(codec, batch), ordinary) if ordinary else None
    return None


def with_windows(codec: Codec, batch: Batch) -> Batch:
    """Add the columns of the window, as `calculate` receives them."""
    window = codec.event.window
    if window is None:
        return batch
    columns = Windows(window).add(_slots(codec, batch), batch)
    return batch.with_columns({name: np.ascontiguousarray(column) for name, column in columns.items()})


def _with_previous(codec: Codec, batch: Batch) -> Batch:
    if not codec.event.previous:
        return batch
    accepted = np.ones(len(batch), dtype=np.bool_)
    return batch.with_columns(
        PreviousValues(codec.event.previous).columns(_slots(codec, batch), batch, accepted)
    )


def _slots(codec: Codec, batch: Batch) -> IntVector:
    return KeyIndex().slots(batch[codec.event.key].tolist())


def _resolve(codec: Codec, bodies: list[bytes]) -> Batch | None:
    encoded = EncodedRows(codec.event.name)
    for row, body in enumerate(bodies):
        encoded.add(row, body, None, None)
    arrived = np.full(len(bodies), int((_START + 24 * _HOUR).timestamp() * 1_000), dtype=np.int64)
    try:
        return resolve_schema(encoded, codec, arrived).passed
    except Exception:  # the schema may reject an extreme value
        return None


def _encode_row(codec: Codec, variant: int, number: int) -> bytes:
    values: dict[str, object] = {}
    for at, field in enumerate(codec.schema.fields):
        if field.name == codec.event.key:
            values[field.name] = _ordinary_value(field.type, variant % 2)
        elif field.name == codec.event.id and field.kind == TEXT:
            values[field.name] = f"id {number}"
        elif not _is_missing(field, codec, variant, at):
            values[field.name] = _field_value(field, codec, variant)
    return msgspec.json.encode(values)


def _is_missing(field: Field, codec: Codec, variant: int, at: int) -> bool:
    """Whether the field is missing: two rows lack every optional field, the next ones every other optional field."""
    optional = (field.nullable or field.has_default) and field.name not in codec.event.required
    if not optional or not ORDINARY <= variant < ORDINARY + WITHOUT_OPTIONAL:
        return False
    return variant < ORDINARY + 2 or (variant + at) % 2 == 0


def _field_value(field: Field, codec: Codec, variant: int) -> object:
    """Return a value of the field. The time of a window is never extreme, as it positions the row in the window."""
    window = codec.event.window
    is_window_time = window is not None and field.name == window.time
    extreme = variant - ORDINARY - WITHOUT_OPTIONAL
    if extreme >= 0 and not is_window_time:
        return _extreme_value(field.type, extreme)
    return _ordinary_value(field.type, variant)


def _extreme_value(avro: AvroType, number: int) -> object:
    """Return an extreme value of a type, or an ordinary value if the type has none."""
    known = _EXTREMES.get(_branch(avro).logical_name)
    return _ordinary_value(avro, number) if known is None else known[number]


def _branch(avro: AvroType) -> AvroType:
    """Return the type itself, or the first branch of a union that is not null."""
    branches = [branch for branch in avro.branches if branch.type != "null"]
    return branches[0] if branches else avro


def _ordinary_value(avro: AvroType, variant: int, depth: int = 0) -> object:
    """Return an ordinary value of a type in JSON form. Raises NoValueError for an unknown type.

    Beyond the maximum depth of a recursive type, a nullable value is null.
    """
    if depth > _MAX_DEPTH:
        if avro.nullable:
            return None
        raise NoValueError(str(avro))
    branch = _branch(avro)
    at = _START + variant * _HOUR
    values: dict[str, object] = {
        "null": None,
        "boolean": variant % 2 == 0,
        "int": variant + 1,
        "long": variant + 1,
        "float": variant + 0.5,
        "double": variant + 0.5,
        "string": f"text {variant}",
        "bytes": _base64(b"bytes"),
        INSTANT: at.isoformat(),
        LOCAL: at.replace(tzinfo=None).isoformat(),
        DATE: (date(2024, 1, 1) + timedelta(days=variant)).isoformat(),
        TIME_OF_DAY: clock(variant % 24).isoformat(),
        UUID: str(uuid.UUID(int=variant + 1)),
        "fixed": _base64(bytes(branch.size)),
    }
    if branch.logical_name in values:
        return values[branch.logical_name]
    return _composite_value(branch, variant, depth + 1)


def _composite_value(avro: AvroType, variant: int, depth: int) -> object:
    match avro.logical_name:
        case "decimal":
            return str(Decimal(variant % 9 + 1).scaleb(-avro.logical.unit if avro.logical else 0))
        case "enum" if avro.symbols:
            return avro.symbols[variant % len(avro.symbols)]
        case "array" if avro.items is not None:
            return [] if depth > _MAX_DEPTH else [_ordinary_value(avro.items, variant, depth)]
        case "map" if avro.items is not None:
            return {} if depth > _MAX_DEPTH else {"a": _ordinary_value(avro.items, variant, depth)}
        case "record" | "error":
            return {item.name: _ordinary_value(item.type, variant, depth) for item in avro.fields}
        case other:
            raise NoValueError(other)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
