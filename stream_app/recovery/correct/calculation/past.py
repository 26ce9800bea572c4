"""Reconstructs a device's past from stored rows, for window and previous values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from stream_app.model.event import Event
from stream_app.model.record import Batch, IntVector, Position
from stream_app.model.segment import token
from stream_app.pipeline.readers.columns import build
from stream_app.pipeline.registry import Codec
from stream_app.pipeline.values.schema import TICKS_PER_SECOND
from stream_app.recovery.correct.history_entry import Entry
from stream_app.recovery.correct.rewriting.files import EventFiles, FileRows, ListedFile, stored_names
from stream_app.sinks.parquet import field_name

# Limits the search for earlier rows of a device that was silent for a long time.
MAX_FILES = 1_000
_HOUR = timedelta(hours=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# A row's values in the order of the schema's fields.
Values = tuple[object, ...]


class EarlierRow(NamedTuple):
    """An earlier row of a device, with its values in the order of the schema's fields."""

    position: Position
    values: Values


class TargetRow(NamedTuple):
    """The row to correct: its index in its file and its device.

    `arrived` is in milliseconds since the epoch.
    """

    position: Position
    row: int
    device: str
    arrived: int


@dataclass(frozen=True, slots=True)
class RowContext:
    """Finds the rows before and after the rows of one file, which is `key` and has these `rows`."""

    files: EventFiles
    codec: Codec
    key: str
    rows: FileRows

    @property
    def time(self) -> str | None:
        """The stored column with the window's time, None without a window."""
        window = self.codec.event.window
        return None if window is None else stored_names(self.codec)[window.time]

    def before(self, targets: Sequence[TargetRow], *, all_rows: bool = False) -> list[list[EarlierRow]]:
        """Return for each target the device's earlier rows that its window or previous values need.

        Files are read backwards until nothing is missing, for at most twice the hours that the window spans, and at
        most MAX_FILES. With `all_rows`, which is needed where corrections change the time of rows, every earlier
        row of these files is returned. The rows are in the order of their positions.
        """
        selected = [self._selected(target, all_rows) for target in targets]
        indexes_by_file: dict[int, tuple[FileRows, set[int]]] = {}
        for rows, indexes in (part for parts in selected for part in parts):
            indexes_by_file.setdefault(id(rows), (rows, set()))[1].update(indexes.tolist())
        shard = targets[0].position.shard if targets else ""
        known = {name: self._values(*pair, shard) for name, pair in indexes_by_file.items()}
        return [
            [known[id(rows)][at] for rows, indexes in parts for at in indexes.tolist()] for parts in selected
        ]

    def after(self, target: TargetRow, now_ms: int) -> tuple[list[str], str | None]:
        """Return the later rows (tokens) whose windows include the target, and until when they do.

        Considers the rows that are stored now. Without a window, no row is affected.
        """
        window, steps = self.codec.event.window, self.rows.steps
        if window is None or steps is None:
            return [], None
        step = int(steps[target.row])
        hours = min(_hours(self.codec.event), math.ceil((now_ms - target.arrived) / 3_600_000) + 1)
        event = self.codec.event.name
        files = self.files.later(event, target.position, target.arrived, hours)
        found = [
            (
                self.rows,
                self._rows_in_steps(self.rows, target.device, step, step + window.size, target.row + 1),
            )
        ]
        for stored in sorted(islice(self._other_files(files), MAX_FILES)):
            rows = self.files.rows(stored, self.codec)
            if rows is not None:
                found.append((rows, self._rows_in_steps(rows, target.device, step, step + window.size)))
        time = self.rows.table[self.time][target.row].as_py()
        affected = [place for rows, indexes in found if len(indexes) for place in _tokens(rows, indexes)]
        return affected, (time + window.size * window.step).isoformat()

    def _selected(self, target: TargetRow, all_rows: bool) -> list[tuple[FileRows, IntVector]]:
        """Return the rows needed for a target by file, in order."""
        event = self.codec.event
        if event.window is None and not event.previous:
            return []
        step = 0 if self.rows.steps is None else int(self.rows.steps[target.row])
        parts = [(self.rows, self._required_rows(self.rows, target.device, step, target.row, all_rows))]
        missing = _Unmet(event, step, parts[0])
        hours = _hours(event)
        files = self.files.earlier(event.name, target.position, target.arrived, hours)
        for stored in islice(self._other_files(files), MAX_FILES):
            if not missing:
                break
            rows = self.files.rows(stored, self.codec)
            if rows is not None:
                parts.insert(
                    0, (rows, self._required_rows(rows, target.device, step, len(rows.table), all_rows))
                )
                missing.found(parts[0])
        return parts

    def _other_files(self, files: Iterable[ListedFile]) -> Iterable[ListedFile]:
        return (stored for stored in files if stored.key != self.key)

    def _required_rows(
        self, rows: FileRows, device: str, step: int, before: int, all_rows: bool
    ) -> IntVector:
        """Return the device's rows before index `before` that a row at window `step` needs.

        These are the last one and those in its window. A row that is older than the window is not needed: no window
        slot that it fills is read, and it never replaces a newer row.
        """
        device_rows = rows.of(device)
        device_rows = device_rows[: int(np.searchsorted(device_rows, before))]
        if all_rows:
            return device_rows
        if rows.steps is None or self.codec.event.window is None:
            return device_rows[-1:]
        needed = rows.steps[device_rows] > step - self.codec.event.window.size
        needed[-1:] = True
        return device_rows[needed]

    def _rows_in_steps(self, rows: FileRows, device: str, first: int, stop: int, start: int = 0) -> IntVector:
        """Return the device's rows from index `start` whose window steps are in [first, stop)."""
        device_rows = rows.of(device)
        if rows.steps is None:
            return device_rows[:0]
        device_rows = device_rows[int(np.searchsorted(device_rows, start)) :]
        steps = rows.steps[device_rows]
        return device_rows[(first <= steps) & (steps < stop)]

    def _values(self, rows: FileRows, indexes: set[int], shard: str) -> dict[int, EarlierRow]:
        """Return rows as Python values, by index."""
        at = sorted(indexes)
        part = rows.table.take(pa.array(at, pa.int64()))
        columns = [part[name].to_pylist() for name in stored_names(self.codec).values()]
        places = zip(part["sequence"].to_pylist(), part["sub"].to_pylist(), strict=True)
        values = zip(*columns, strict=True)
        return {
            row: EarlierRow(Position(shard, *place), each)
            for row, place, each in zip(at, places, values, strict=True)
        }


class _Unmet:
    """What a row's past still lacks: steps of its window, or any earlier row at all."""

    def __init__(self, event: Event, step: int, part: tuple[FileRows, IntVector]) -> None:
        size = 0 if event.window is None else event.window.size
        self._steps = {step - back for back in range(1, size)}
        self._any = bool(event.previous)
        self.found(part)

    def __bool__(self) -> bool:
        return self._any or bool(self._steps)

    def found(self, part: tuple[FileRows, IntVector]) -> None:
        """Remove what these rows provide."""
        rows, indexes = part
        self._any = self._any and not len(indexes)
        if rows.steps is not None:
            self._steps.difference_update(rows.steps[indexes].tolist())


def row_fields(row: pa.Table, codec: Codec) -> Batch | None:
    """Return the fields of one stored row as decoded.

    Returns None where the file lacks a field of the current schema.
    """
    names = stored_names(codec)
    if any(stored not in row.column_names for stored in names.values()):
        return None
    batch = batch_of([tuple(row[stored][0].as_py() for stored in names.values())], codec)
    arrived = np.array([row["arrived"][0].value], dtype="datetime64[ms]")
    return None if batch is None else batch.with_columns({"arrived": arrived})


def with_previous_values(earlier: EarlierRow, before: Mapping[str, object], codec: Codec) -> Values:
    """Return a row's values with the values that a recorded correction replaced."""
    kinds = {each.name: (at, each.kind) for at, each in enumerate(codec.schema.fields)}
    values = list(earlier.values)
    for column, value in before.items():
        at, kind = kinds.get(field_name(column, codec.event.name, kinds), (None, ""))
        if at is not None:
            is_text_time = kind in TICKS_PER_SECOND and isinstance(value, str)
            values[at] = datetime.fromisoformat(str(value)) if is_text_time else value
    return tuple(values)


def previous_values(entries: Iterable[Entry]) -> dict[Position, Mapping[str, object]]:
    """Return the values of corrected rows before their correction, by position."""
    return {entry.request.position: entry.done.before for entry in entries if entry.done}


def batch_of(rows: Sequence[Values], codec: Codec) -> Batch | None:
    """Return rows of values as a batch; None without rows."""
    if not rows:
        return None
    fields = codec.schema.fields
    values = [tuple(map(_ticks, row, (each.kind for each in fields))) for row in rows]
    columns = build(values, fields, codec.event.required)
    return Batch(codec.event.name, columns, np.arange(len(rows)))


def _ticks(value: object, kind: str) -> object:
    """Convert a stored value to the input of `columns.build`: times to ticks of their column."""
    per_second = TICKS_PER_SECOND.get(kind)
    if per_second is None or not isinstance(value, datetime):
        return value
    return (value - _EPOCH) * per_second // timedelta(seconds=1)


def _tokens(rows: FileRows, indexes: IntVector) -> list[str]:
    part = rows.table.select(["sequence", "sub"]).take(pa.array(indexes))
    places = zip(part["sequence"].to_pylist(), part["sub"].to_pylist(), strict=True)
    return [token(Position("", *place)) for place in places]


def _hours(event: Event) -> int:
    """Return how many hours to search: twice the window's span, for clocks that are off."""
    span = event.window.size * event.window.step if event.window is not None else timedelta(days=1)
    return math.ceil(2 * span / _HOUR)
