"""A device's past, put together from stored rows: what windows and previous values of a row were made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from stream_app.model.event import Event
from stream_app.model.record import Batch, IntVector, Position
from stream_app.model.segment import token
from stream_app.pipeline.readers.columns import build
from stream_app.pipeline.registry import Codec
from stream_app.pipeline.values.schema import TICKS_PER_SECOND
from stream_app.recovery.correct.history import Entry
from stream_app.recovery.correct.rewriting.files import Files, Rows, Stored, stored_names
from stream_app.sinks.parquet import field_name

# So many files are read at most; a device that was silent for a while is otherwise sought without end.
MOST_FILES = 1_000
_HOUR = timedelta(hours=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Values = tuple[Any, ...]


class Earlier(NamedTuple):
    """One earlier row of a device: its position, and its values in the order of the schema's fields."""

    position: Position
    values: Values


class Own(NamedTuple):
    """The row that is corrected: its row in its file, its device, and when it arrived (ms since the epoch)."""

    position: Position
    row: int
    device: str
    arrived: int


@dataclass(frozen=True, slots=True)
class ShardFiles:
    """The files of one shard around one of them, which is `key` and has these `rows`."""

    files: Files
    codec: Codec
    key: str
    rows: Rows

    @property
    def time(self) -> str | None:
        """The stored column of the window's time; None without a window."""
        window = self.codec.event.window
        return None if window is None else stored_names(self.codec)[window.time]

    def before(self, owns: Sequence[Own], *, every: bool = False) -> list[list[Earlier]]:
        """For each row the device's rows before it that its window or previous values need, in order.

        Files are read backwards until nothing is missing, for so many hours as the window spans twice, or for
        MOST_FILES. Where corrections move rows in time, `every` row of these files is needed.
        """
        picked = [self._picked(own, every) for own in owns]
        wanted: dict[int, tuple[Rows, set[int]]] = {}
        for rows, chosen in (part for parts in picked for part in parts):
            wanted.setdefault(id(rows), (rows, set()))[1].update(chosen.tolist())
        shard = owns[0].position.shard if owns else ""
        known = {name: self._values(*pair, shard) for name, pair in wanted.items()}
        return [[known[id(rows)][at] for rows, chosen in parts for at in chosen.tolist()] for parts in picked]

    def after(self, own: Own, now_ms: int) -> tuple[list[str], str | None]:
        """Positions (tokens) of later rows whose windows hold the value of this one, and until what time they do.

        Only what is stored by now; without a window nothing.
        """
        window, steps = self.codec.event.window, self.rows.steps
        if window is None or steps is None:
            return [], None
        step = int(steps[own.row])
        hours = min(_hours(self.codec.event), math.ceil((now_ms - own.arrived) / 3_600_000) + 1)
        event = self.codec.event.name
        files = self.files.later(event, own.position, own.arrived, hours)
        found = [(self.rows, self._within(self.rows, own.device, step, step + window.size, own.row + 1))]
        for stored in sorted(islice(self._others(files), MOST_FILES)):
            rows = self.files.rows(stored, self.codec)
            if rows is not None:
                found.append((rows, self._within(rows, own.device, step, step + window.size)))
        time = self.rows.table[self.time][own.row].as_py()
        touched = [place for rows, chosen in found if len(chosen) for place in _tokens(rows, chosen)]
        return touched, (time + window.size * window.step).isoformat()

    def _picked(self, own: Own, every: bool) -> list[tuple[Rows, IntVector]]:
        """Which rows of which files, in order."""
        event = self.codec.event
        if event.window is None and not event.previous:
            return []
        step = 0 if self.rows.steps is None else int(self.rows.steps[own.row])
        parts = [(self.rows, self._needed(self.rows, own.device, step, own.row, every))]
        missing = _Missing(event, step, parts[0])
        hours = _hours(event)
        files = self.files.earlier(event.name, own.position, own.arrived, hours)
        for stored in islice(self._others(files), MOST_FILES):
            if not missing:
                break
            rows = self.files.rows(stored, self.codec)
            if rows is not None:
                parts.insert(0, (rows, self._needed(rows, own.device, step, len(rows.table), every)))
                missing.found(parts[0])
        return parts

    def _others(self, files: Iterable[Stored]) -> Iterable[Stored]:
        return (stored for stored in files if stored.key != self.key)

    def _needed(self, rows: Rows, device: str, step: int, before: int, every: bool) -> IntVector:
        """The device's rows before a row of the file: the last one, and those that a window at `step` may hold.

        A row that is older than the window has no say: no slot that it fills is looked at, and it never pushes
        out a newer one.
        """
        mine = rows.of(device)
        mine = mine[: int(np.searchsorted(mine, before))]
        if every:
            return mine
        if rows.steps is None or self.codec.event.window is None:
            return mine[-1:]
        needed = rows.steps[mine] > step - self.codec.event.window.size
        needed[-1:] = True
        return mine[needed]

    def _within(self, rows: Rows, device: str, first: int, stop: int, start: int = 0) -> IntVector:
        """The device's rows from a row on whose steps are in a range."""
        mine = rows.of(device)
        if rows.steps is None:
            return mine[:0]
        mine = mine[int(np.searchsorted(mine, start)) :]
        steps = rows.steps[mine]
        return mine[(first <= steps) & (steps < stop)]

    def _values(self, rows: Rows, chosen: set[int], shard: str) -> dict[int, Earlier]:
        """Rows in Python values."""
        at = sorted(chosen)
        part = rows.table.take(pa.array(at, pa.int64()))
        columns = [part[name].to_pylist() for name in stored_names(self.codec).values()]
        places = zip(part["sequence"].to_pylist(), part["sub"].to_pylist(), strict=True)
        values = zip(*columns, strict=True)
        return {
            row: Earlier(Position(shard, *place), each)
            for row, place, each in zip(at, places, values, strict=True)
        }


class _Missing:
    """What is still missing of a row's past: steps of its window, or any earlier row at all."""

    def __init__(self, event: Event, step: int, part: tuple[Rows, IntVector]) -> None:
        size = 0 if event.window is None else event.window.size
        self._steps = {step - back for back in range(1, size)}
        self._any = bool(event.previous)
        self.found(part)

    def __bool__(self) -> bool:
        return self._any or bool(self._steps)

    def found(self, part: tuple[Rows, IntVector]) -> None:
        """Take note of rows."""
        rows, chosen = part
        self._any = self._any and not len(chosen)
        if rows.steps is not None:
            self._steps.difference_update(rows.steps[chosen].tolist())


def own_fields(row: pa.Table, codec: Codec) -> Batch | None:
    """The fields of one stored row, as its payload gave them; None where the file knows a field of today not yet."""
    names = stored_names(codec)
    if any(stored not in row.column_names for stored in names.values()):
        return None
    batch = batch_of([tuple(row[stored][0].as_py() for stored in names.values())], codec)
    arrived = np.array([row["arrived"][0].value], dtype="datetime64[ms]")
    return None if batch is None else batch.with_columns({"arrived": arrived})


def restored(earlier: Earlier, before: Mapping[str, Any], codec: Codec) -> Values:
    """A row's values with those put back that a correction replaced, as a history keeps them."""
    kinds = {each.name: (at, each.kind) for at, each in enumerate(codec.schema.fields)}
    values = list(earlier.values)
    for column, value in before.items():
        at, kind = kinds.get(field_name(column, codec.event.name, kinds), (None, ""))
        if at is not None:
            is_time = kind in TICKS_PER_SECOND and isinstance(value, str)
            values[at] = datetime.fromisoformat(value) if is_time else value
    return tuple(values)


def noted(entries: Iterable[Entry]) -> dict[Position, Mapping[str, Any]]:
    """What corrected rows held before, by position."""
    return {entry.request.position: entry.done.before for entry in entries if entry.done}


def batch_of(rows: Sequence[Values], codec: Codec) -> Batch | None:
    """Rows of values as a batch; None without rows."""
    if not rows:
        return None
    fields = codec.schema.fields
    values = [tuple(map(_ticks, row, (each.kind for each in fields))) for row in rows]
    columns = build(values, fields, codec.event.required)
    return Batch(codec.event.name, columns, np.arange(len(rows)))


def _ticks(value: Any, kind: str) -> Any:
    """A stored value as `columns.build` takes it: times as ticks of their column."""
    per_second = TICKS_PER_SECOND.get(kind)
    if per_second is None or not isinstance(value, datetime):
        return value
    return (value - _EPOCH) * per_second // timedelta(seconds=1)


def _tokens(rows: Rows, chosen: IntVector) -> list[str]:
    part = rows.table.select(["sequence", "sub"]).take(pa.array(chosen))
    places = zip(part["sequence"].to_pylist(), part["sub"].to_pylist(), strict=True)
    return [token(Position("", *place)) for place in places]


def _hours(event: Event) -> int:
    """A device whose clock is right sent what a window holds within so many hours."""
    span = event.window.size * event.window.step if event.window is not None else timedelta(days=1)
    return math.ceil(2 * span / _HOUR)
