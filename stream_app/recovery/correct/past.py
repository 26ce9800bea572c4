"""A device's past, put together from stored rows: what windows and previous values of a row were made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stream_app.event import Event
from stream_app.pipeline.columns import build
from stream_app.pipeline.registry import Codec
from stream_app.pipeline.schema import TICKS_PER_SECOND
from stream_app.record import Batch, Position
from stream_app.recovery.correct.history import Entry
from stream_app.recovery.correct.recalculate import Past
from stream_app.recovery.correct.segment import File, earlier, later, read
from stream_app.sinks.parquet import stored_name
from stream_app.sinks.segment import token

# So many files are read at most; a device that was silent for a while is otherwise sought without end.
MOST_FILES = 1_000
_HOUR = timedelta(hours=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shelf:
    """The event files of one shard, from which a device's rows are taken."""

    s3: Any
    bucket: str
    codec: Codec
    device: str
    arrived: int

    def before(self, position: Position, file: File) -> list[Row]:
        """The device's rows before a position, in order, as far back as windows and previous values reach.

        `file` holds the position. Stops when nothing is missing, after so many hours as the window spans twice,
        or after MOST_FILES.
        """
        event, found = self.codec.event, [r for r in self._rows(file) if r["order"] < position.order]
        own = next(row for row in self._rows(file) if row["order"] == position.order)
        if event.window is None and not event.previous:
            return []
        keys = earlier(self.s3, self.bucket, event.name, position, self.arrived, _hours(event))
        for key in islice((key for key in keys if key != file.key), MOST_FILES):
            if not _missing(event, own, found):
                break
            other = read(self.s3, self.bucket, key)
            found += self._rows(other) if other is not None else []
        return sorted(found, key=lambda row: row["order"])

    def after(self, position: Position, file: File, now_ms: int) -> tuple[list[str], str | None]:
        """Positions (tokens) of later rows whose windows hold the value of this one, and until what time they do.

        Only what is stored by now; without a window nothing.
        """
        window = self.codec.event.window
        if window is None:
            return [], None
        rows = self._rows(file)
        own = next(row for row in rows if row["order"] == position.order)
        hours = min(_hours(self.codec.event), math.ceil((now_ms - self.arrived) / 3_600_000) + 1)
        keys = later(self.s3, self.bucket, self.codec.event.name, position, self.arrived, hours)
        for key in islice((key for key in keys if key != file.key), MOST_FILES):
            other = read(self.s3, self.bucket, key)
            rows += self._rows(other) if other is not None else []
        step = _step(self.codec.event, own)
        touched = [
            row["token"]
            for row in sorted(rows, key=lambda row: row["order"])
            if row["order"] > position.order and step <= _step(self.codec.event, row) < step + window.size
        ]
        return touched, (own[window.time] + window.size * window.step).isoformat()

    def _rows(self, file: File) -> list[Row]:
        """The device's rows in a file: fields of the schema, and the position."""
        names = _stored_names(self.codec)
        if any(stored not in file.table.column_names for stored in names.values()):
            return []
        compute: Any = pc
        key = file.table[names[self.codec.event.key]]
        mine = file.table.filter(compute.equal(key, pa.scalar(self.device, key.type)))
        columns = {name: mine[stored].to_pylist() for name, stored in names.items()}
        positions: Any = zip(mine["sequence"].to_pylist(), mine["sub"].to_pylist(), strict=True)
        found = []
        for at, (sequence, sub) in enumerate(positions):
            place = Position("", sequence, sub)
            row: Row = {name: column[at] for name, column in columns.items()}
            found.append({**row, "order": place.order, "place": place[1:], "token": token(place)})
        return found


def own_fields(row: pa.Table, codec: Codec) -> Batch | None:
    """The fields of one stored row, as its payload gave them; None where the file knows a field of today not yet."""
    names = _stored_names(codec)
    if any(stored not in row.column_names for stored in names.values()):
        return None
    found: Row = {name: row[stored][0].as_py() for name, stored in names.items()}
    batch = _batch([found], codec)
    arrived = np.array([row["arrived"][0].value], dtype="datetime64[ms]")
    return None if batch is None else batch.with_columns({"arrived": arrived})


def _stored_names(codec: Codec) -> dict[str, str]:
    """The schema's fields, and the columns that hold them."""
    return {field.name: stored_name(field.name, codec.event.name) for field in codec.schema.fields}


def past(rows: list[Row], corrections: Iterable[Entry], codec: Codec) -> Past:
    """The rows as batches: as they were before any correction, and as they are."""
    before = {token(entry.request.position): entry.done.before for entry in corrections if entry.done}
    original = [_restored(row, before.get(row["token"], {}), codec) for row in rows]
    return Past(_batch(original, codec), _batch(rows, codec))


def _restored(row: Row, before: Mapping[str, Any], codec: Codec) -> Row:
    kinds = {field.name: field.kind for field in codec.schema.fields}
    changed = {
        name: datetime.fromisoformat(value)
        if kinds[name] in TICKS_PER_SECOND and isinstance(value, str)
        else value
        for name, value in before.items()
        if name in kinds
    }
    return {**row, **changed}


def _batch(rows: list[Row], codec: Codec) -> Batch | None:
    if not rows:
        return None
    fields = codec.schema.fields
    values = [[_ticks(row[field.name], field.kind) for field in fields] for row in rows]
    columns = build(values, fields, codec.event.required)
    return Batch(codec.event.name, columns, np.arange(len(rows)))


def _ticks(value: Any, kind: str) -> Any:
    """A stored value as `columns.build` takes it: times as ticks of their column."""
    per_second = TICKS_PER_SECOND.get(kind)
    if per_second is None or not isinstance(value, datetime):
        return value
    return (value - _EPOCH) * per_second // timedelta(seconds=1)


def _missing(event: Event, own: Row, found: list[Row]) -> bool:
    """Whether an earlier row could still say something about this one."""
    if event.previous and not found:
        return True
    if event.window is None:
        return False
    step = _step(event, own)
    wanted = {step - back for back in range(1, event.window.size)}
    return bool(wanted - {_step(event, row) for row in found})


def _step(event: Event, row: Row) -> int:
    if event.window is None:
        raise ValueError("no window")
    time = np.datetime64(row[event.window.time].replace(tzinfo=None), "us")
    return int((time - np.datetime64(0, "s")) // np.timedelta64(event.window.step))


def _hours(event: Event) -> int:
    """A device whose clock is right sent what a window holds within so many hours."""
    span = event.window.size * event.window.step if event.window is not None else timedelta(days=1)
    return math.ceil(2 * span / _HOUR)
