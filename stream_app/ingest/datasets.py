"""Data sets as time-ordered device readings: the shipped ones by name, others from files."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stream_app.errors import ConfigError, Problem
from stream_app.ingest.files import Row, files, format_of, lines, tables
from stream_app.ingest.parcels import journeys
from stream_app.model.record import IntVector

# An Arrow array of any type. Quoted because pyarrow does not support the subscript at run time.
Column: TypeAlias = "pa.Array[Any]"

WINTER = "beijing-winter"
JOURNEYS = "parcel-journeys"
NAMES: Mapping[str, str] = {
    WINTER: "25,920 hourly air-quality readings of twelve stations in Beijing, December 2016 to February 2017",
    JOURNEYS: "the journeys of 1,000 parcels, generated from a seed",
}
# Columns of the original data set (UCI 501) and the corresponding fields of air_quality.
ORIGINAL: Mapping[str, str] = {
    "PM2.5": "pm25",
    "PM10": "pm10",
    "SO2": "so2",
    "NO2": "no2",
    "CO": "co",
    "O3": "o3",
    "TEMP": "temperature",
    "PRES": "pressure",
    "DEWP": "dew_point",
    "RAIN": "rain",
    "wd": "wind_direction",
    "WSPM": "wind_speed",
}
_NUMBERS = frozenset(itertools.chain(*ORIGINAL.items())) - {"wd", "wind_direction"}
_CALENDAR = ("year", "month", "day", "hour")
_BEIJING = np.timedelta64(
    8, "h"
)  # The calendar columns of the original are local time without daylight saving.
_DROPPED = frozenset({"No", *_CALENDAR})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RANGE = (-62_135_596_800_000, 253_402_300_799_999)  # milliseconds: the years 1 to 9999
_DATA = Path(__file__).parent / "data"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set that can be read any number of times.

    `event` is the event type if the data names it, `columns` the fields, `size` the number of readings. `rows()`
    returns the readings ordered by time, then device.
    """

    name: str
    event: str | None
    columns: tuple[str, ...]
    size: int
    rows: Callable[[], Iterator[Row]]


class _Chunk(NamedTuple):
    """A chunk of a file: the times of its rows (milliseconds since the epoch) and a function that reads the rows."""

    times: IntVector
    columns: tuple[str, ...]
    event: str | None
    rows: Callable[[], Iterable[Row]]


def readings(path_or_name: str | Path) -> Iterator[Row]:
    """Return the readings of a data set, ordered by time, then station. Raises ConfigError like `dataset`."""
    return dataset(path_or_name).rows()


def dataset(path_or_name: str | Path) -> Dataset:
    """Open one of NAMES, a Parquet, CSV or JSON-lines file, or a folder of such files, which are merged by time.

    A file must have a column `time` in ascending order: timestamps (UTC without a time zone) or integers in
    milliseconds since the epoch. The original columns of the Beijing data set are renamed to the fields of
    air_quality; its local `year, month, day, hour` are accepted too. NaN, NA and empty cells become None. Memory is
    bounded by one chunk of each file.

    Raises ConfigError with a hint for an invalid file. Every file is read completely to validate it first.
    """
    if path_or_name == JOURNEYS:
        size = sum(1 for _ in journeys())
        return Dataset(JOURNEYS, "parcel", tuple(next(journeys())), size, journeys)
    path = _DATA / f"{WINTER}.parquet" if path_or_name == WINTER else Path(path_or_name)
    if not path.exists():
        hint = f"use a file, a folder, or one of {', '.join(NAMES)}"
        raise ConfigError([Problem(f"the data set {str(path_or_name)!r} does not exist", hint)])
    parts = files(path)
    inspected = [_inspect(part) for part in parts]
    columns = tuple(dict.fromkeys(itertools.chain(*(found.columns for found in inspected))))
    events = {found.event for found in inspected}
    event = events.pop() if len(events) == 1 else None
    size = sum(found.size for found in inspected)
    name = WINTER if path_or_name == WINTER else path.name
    return Dataset(name, event, columns, size, partial(_rows, parts, _device(columns)))


def _rows(parts: list[Path], device: str | None) -> Iterator[Row]:
    merged = heapq.merge(*(_file_rows(part) for part in parts), key=itemgetter("time"))
    if device is None:
        yield from merged
        return
    for _, same_time in itertools.groupby(merged, key=itemgetter("time")):
        yield from sorted(same_time, key=lambda row: str(row.get(device)))


def _device(columns: Iterable[str]) -> str | None:
    return next((name for name in ("station", "parcel") if name in columns), None)


def _file_rows(path: Path) -> Iterator[Row]:
    for chunk in _chunks(path):
        yield from chunk.rows()


class _Inspection(NamedTuple):
    columns: tuple[str, ...]
    event: str | None
    size: int


def _inspect(path: Path) -> _Inspection:
    """Read a file once to determine its columns and length and to verify that its times ascend."""
    columns: dict[str, None] = {}
    events: set[str | None] = set()
    size = 0
    last = None
    for chunk in _chunks(path):
        columns.update(dict.fromkeys(chunk.columns))
        events.add(chunk.event)
        falls = np.flatnonzero(np.diff(chunk.times, prepend=chunk.times[0] if last is None else last) < 0)
        if len(falls):
            hint = "sort the file by time, or use a folder with one sorted file per device"
            what = f"{path.name}: the time of row {size + falls[0] + 1} is earlier than the previous one"
            raise ConfigError([Problem(what, hint)])
        size, last = size + len(chunk.times), chunk.times[-1]
    if not size:
        raise ConfigError([Problem(f"{path.name} has no rows", "use a file with readings")])
    event = events.pop() if len(events) == 1 else None
    known = "air_quality" if {"station", "pm25"} <= columns.keys() else None
    return _Inspection(tuple(columns), event or known, size)


def _chunks(path: Path) -> Iterator[_Chunk]:
    if format_of(path) in (".parquet", ".csv"):
        for table in tables(path, _NUMBERS):
            if table.num_rows:
                yield _of_table(table, path)
    else:
        for rows in lines(path):
            yield _of_rows(rows, path)


def _of_table(table: pa.RecordBatch, path: Path) -> _Chunk:
    times = _times(table, path)
    names = {name: ORIGINAL.get(name, name) for name in table.schema.names if name not in _DROPPED}
    columns = tuple(dict.fromkeys(("time", *names.values())))

    def rows() -> Iterator[Row]:
        values = {field: _values(table.column(name)) for name, field in names.items() if field != "time"}
        for time, *row in zip(_datetimes(times), *values.values(), strict=True):
            yield _with_id({"time": time, **dict(zip(values, row, strict=True))})

    return _Chunk(times, columns, None, rows)


def _values(column: Column) -> list[object]:
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    elif pa.types.is_timestamp(column.type):
        moments = column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64()).to_pylist()
        return [None if ms is None else _datetime(ms) for ms in moments]
    values: list[object] = column.to_pylist()
    return values


def _times(table: pa.RecordBatch, path: Path) -> IntVector:
    names = table.schema.names
    if "time" in names:
        return _of_column(table.column("time"), path)
    if set(_CALENDAR) <= set(names):
        year, month, day, hour = (table.column(name).to_numpy(zero_copy_only=False) for name in _CALENDAR)
        months = (year - 1970).astype("M8[Y]").astype("M8[M]") + (month - 1)
        local = (months.astype("M8[D]") + (day - 1)).astype("M8[h]") + hour
        return np.asarray((local - _BEIJING).astype("M8[ms]").astype(np.int64))
    raise _time_error(path, f"no column `time` among {', '.join(names[:12])}")


def _of_column(column: Column, path: Path) -> IntVector:
    if column.null_count:
        raise _time_error(path, "a row has no time")
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ms", tz=column.type.tz), safe=False)
    elif not pa.types.is_integer(column.type):
        raise _time_error(path, f"`time` has the type {column.type}")
    times = np.asarray(column.cast(pa.int64()).to_numpy(zero_copy_only=False))
    if len(times) and not (_RANGE[0] <= times.min() and times.max() <= _RANGE[1]):
        raise _time_error(path, "a time is out of range")
    return times


def _of_rows(rows: list[Row], path: Path) -> _Chunk:
    """Convert JSON lines. Values are kept whatever their type, so that the application validates them."""
    translated = [{ORIGINAL.get(name, name): value for name, value in row.items()} for row in rows]
    named = {row.pop("event", None) for row in translated}
    times = np.array([_time_of(row.get("time"), path) for row in translated], dtype=np.int64)
    columns = tuple(dict.fromkeys(itertools.chain(*translated)))
    for row, time in zip(translated, _datetimes(times), strict=True):
        row["time"] = time
    event = named.pop() if len(named) == 1 else None
    return _Chunk(
        times, columns, event if isinstance(event, str) else None, lambda: map(_with_id, translated)
    )


def _time_of(value: object, path: Path) -> int:
    if isinstance(value, int) and _RANGE[0] <= value <= _RANGE[1]:
        return value
    try:
        time = msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        raise _time_error(path, f"`time` is {value!r}"[:80]) from None
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(milliseconds=1)


def _time_error(path: Path, what: str) -> ConfigError:
    hint = "use a column `time` with values like 2016-12-01T00:00:00Z or milliseconds since 1970"
    return ConfigError([Problem(f"{path.name}: {what}", hint)])


def _datetimes(times: IntVector) -> Iterator[datetime]:
    return map(_datetime, times.tolist())


def _datetime(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)


def _with_id(row: Row) -> Row:
    """Add the ID that a station's device would generate, station and UTC hour, to a reading without an ID."""
    if row.get("id") is None and row.get("station") is not None:
        row["id"] = f"{row['station']}/{row['time'].isoformat()[:13]}"
    return row
