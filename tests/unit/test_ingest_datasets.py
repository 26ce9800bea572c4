"""Data sets are complete, ordered and equal in every format, and invalid files are rejected at once."""

from __future__ import annotations

import gzip
import json
import math
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.errors import ConfigError
from stream_app.ingest import files
from stream_app.ingest.datasets import JOURNEYS, NAMES, ORIGINAL, WINTER, dataset, readings
from stream_app.ingest.parcels import journeys

HOUR = timedelta(hours=1)
START = datetime(2016, 11, 30, 16, tzinfo=UTC)  # Midnight in Beijing.
STATIONS = ("Changping", "Dongsi", "Huairou")
FIELDS = tuple(ORIGINAL.values())
few = settings(deadline=None, max_examples=30)

value = st.none() | st.floats(-1e6, 1e6, allow_nan=False, width=32)
original_row = st.fixed_dictionaries(
    {name: value for name in ORIGINAL if name != "wd"} | {"wd": st.none() | st.sampled_from(["N", "SSW"])}
)


def hourly(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return hourly rows of three stations in the columns of the original."""
    return [
        {"time": START + HOUR * (at // len(STATIONS)), "station": STATIONS[at % len(STATIONS)], **row}
        for at, row in enumerate(rows)
    ]


def table(rows: list[dict[str, Any]]) -> pa.Table:
    numbers: dict[str, pa.DataType] = {name: pa.float64() for name in ORIGINAL if name != "wd"}
    types: dict[str, pa.DataType] = {
        "time": pa.timestamp("ms", tz="UTC"),
        "station": pa.string(),
        **numbers,
        "wd": pa.string(),
    }
    return pa.Table.from_pylist(rows, schema=pa.schema(types))


def as_parquet(rows: list[dict[str, Any]], path: Path) -> Path:
    pa.parquet.write_table(table(rows), path.with_suffix(".parquet"), row_group_size=7)
    return path.with_suffix(".parquet")


def as_csv(rows: list[dict[str, Any]], path: Path) -> Path:
    pa.csv.write_csv(table(rows), path.with_suffix(".csv"))
    return path.with_suffix(".csv")


def as_lines(rows: list[dict[str, Any]], path: Path) -> Path:
    text = "".join(json.dumps({**row, "time": row["time"].isoformat()}) + "\n" for row in rows)
    path.with_suffix(".jsonl").write_text(text)
    return path.with_suffix(".jsonl")


def as_zipped(rows: list[dict[str, Any]], path: Path) -> Path:
    path = path.with_suffix(".csv.gz")
    path.write_bytes(gzip.compress(as_csv(rows, path.with_name("plain")).read_bytes()))
    return path


@given(rows=st.lists(original_row, min_size=1, max_size=20).map(hourly))
@few
@pytest.mark.parametrize("write", [as_parquet, as_csv, as_lines, as_zipped])
def test_original_columns_become_fields_in_every_format(
    write: Callable[[list[dict[str, Any]], Path], Path],
    rows: list[dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = write(rows, tmp_path_factory.mktemp("data") / "readings")
    wanted = [
        {
            "id": f"{row['station']}/{row['time']:%Y-%m-%dT%H}",
            "time": row["time"],
            "station": row["station"],
            **{field: row[name] for name, field in ORIGINAL.items()},
        }
        for row in rows
    ]
    assert list(readings(path)) == wanted
    assert dataset(path).size == len(rows)
    assert dataset(path).event == "air_quality"


@given(rows=st.lists(original_row, min_size=3, max_size=30).map(hourly))
@few
def test_a_folder_with_one_file_per_station_equals_a_single_file(
    rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("stations")
    whole = as_parquet(rows, tmp_path_factory.mktemp("whole") / "all")
    for station, write in zip(STATIONS, (as_parquet, as_csv, as_lines), strict=True):
        write([row for row in rows if row["station"] == station], folder / station)
    assert list(readings(folder)) == list(readings(whole))


def test_rows_with_equal_times_are_ordered_by_station(tmp_path: Path) -> None:
    rows = hourly([dict.fromkeys(ORIGINAL)] * 6)
    path = as_csv([*reversed(rows[:3]), *reversed(rows[3:])], tmp_path / "reversed")
    assert [row["station"] for row in readings(path)] == [*STATIONS, *STATIONS]


def test_calendar_columns_are_beijing_time(tmp_path: Path) -> None:
    path = tmp_path / "PRSA_Data_Dongsi.csv"
    path.write_text(
        '"No","year","month","day","hour","PM2.5","wd","station"\n'
        '1,2016,12,1,0,NA,NA,"Dongsi"\n2,2016,12,1,9,8.5,"NNE","Dongsi"\n3,2017,3,1,0,1,N,Dongsi\n'
    )
    first, second, third = readings(path)
    assert first == {
        "id": "Dongsi/2016-11-30T16",
        "time": START,
        "station": "Dongsi",
        "pm25": None,
        "wind_direction": None,
    }
    assert (second["time"], second["pm25"]) == (START + 9 * HOUR, 8.5)
    assert third["time"] == datetime(2017, 2, 28, 16, tzinfo=UTC)


def test_times_without_zone_are_utc_and_integers_are_milliseconds(tmp_path: Path) -> None:
    naive = tmp_path / "naive.csv"
    naive.write_text("time,station,pm25,promised\n2016-11-30 16:00:00,Dongsi,1,2016-11-30T17:00:00\n")
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"time":"2016-11-30T16:00:00","a":1}\n\n{"time":1480521600000,"a":2}\n')
    (row,) = readings(naive)
    assert (row["time"], row["promised"]) == (START, START + HOUR)
    assert [row["time"] for row in readings(lines)] == [START, START]


def test_missing_values_and_nan_in_parquet_are_none(tmp_path: Path) -> None:
    path = tmp_path / "nan.parquet"
    columns: dict[str, Any] = {
        "time": pa.array([0, 1]),
        "station": ["a", "b"],
        "PM2.5": pa.array([math.nan, None]),
    }
    pa.parquet.write_table(pa.table(columns), path)
    assert [row["pm25"] for row in readings(path)] == [None, None]


def test_json_lines_keep_their_values(tmp_path: Path) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_text(
        '{"event":"air_quality","time":0,"station":"Dongsi","id":"x","pm25":"high","deep":{"a":[1]}}\n'
    )
    (row,) = readings(path)
    assert row == {
        "time": datetime(1970, 1, 1, tzinfo=UTC),
        "station": "Dongsi",
        "id": "x",
        "pm25": "high",
        "deep": {"a": [1]},
    }
    assert dataset(path).event == "air_quality"


def test_the_winter_data_set_is_complete() -> None:
    data = dataset(WINTER)
    rows = list(data.rows())
    assert len(rows) == data.size == 25_920
    order = [(row["time"], row["station"]) for row in rows]
    assert order == sorted(order)
    stations = Counter(row["station"] for row in rows)
    assert set(stations.values()) == {90 * 24}
    assert len(stations) == 12
    assert {row["time"] for row in rows} == {START + HOUR * n for n in range(90 * 24)}
    assert all(set(row) == {"id", "time", "station", *FIELDS} for row in rows)
    assert all(row["id"] == f"{row['station']}/{row['time']:%Y-%m-%dT%H}" for row in rows)


def test_missing_values_of_the_winter_data_set_are_none() -> None:
    missing = Counter(name for row in readings(WINTER) for name, value in row.items() if value is None)
    wanted = [340, 279, 323, 355, 634, 378, 134, 128, 134, 129, 525, 80]
    assert [missing[name] for name in FIELDS] == wanted
    assert missing.total() == sum(wanted)


def test_every_data_set_can_be_read_repeatedly() -> None:
    for name in NAMES:
        data = dataset(name)
        first, second = list(data.rows()), list(data.rows())
        assert first == second
        assert len(first) == data.size
        assert set(first[0]) <= set(data.columns) | {"id"}


@given(count=st.integers(0, 60), seed=st.integers(0, 2**32))
@few
def test_parcel_events_are_in_order(count: int, seed: int) -> None:
    events = list(journeys(count, seed))
    assert events == list(journeys(count, seed))
    order = [(event["time"], event["parcel"]) for event in events]
    assert order == sorted(order)
    ways: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        ways.setdefault(event["parcel"], []).append(event)
    assert len(ways) == count
    for way in ways.values():
        statuses = [event["status"] for event in way]
        assert statuses == ["picked_up", *["in_transit"] * (len(way) - 3), "delivered", "signed"]
        assert len(way) > 3
        assert all(a["time"] < b["time"] for a, b in pairwise(way))
        assert len({event["promised"] for event in way}) == 1
    assert len({event["id"] for event in events}) == len(events)


def test_some_parcels_are_late() -> None:
    delivered = [row for row in readings(JOURNEYS) if row["status"] == "delivered"]
    late = sum(row["time"] > row["promised"] for row in delivered)
    assert 0.05 < late / len(delivered) < 0.3


def test_long_files_are_read_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CHUNK_ROWS", 10)
    rows = hourly([dict.fromkeys(ORIGINAL)] * 95)
    assert max(len(piece) for piece in files.lines(as_lines(rows, tmp_path / "a"))) == 10
    assert max(t.num_rows for t in files.tables(as_parquet(rows, tmp_path / "a"), frozenset())) <= 10


GOOD_LINE = '{"time":0,"station":"a"}\n'
WRONG: dict[str, tuple[str, bytes, str]] = {
    "another format": ("a.xlsx", b"PK", "is not supported"),
    "not Parquet": ("a.parquet", b"PAR1 not really", "cannot be read"),
    "empty": ("a.csv", b"", "cannot be read"),
    "no rows": ("a.csv", b"time,station\n", "no rows"),
    "no lines": ("a.jsonl", b"\n \n", "no rows"),
    "no time": ("a.csv", b"when,station\n1,a\n", "no column `time`"),
    "empty time": ("a.csv", b"time,station\n1,a\n,b\n", "no time"),
    "time is text": ("a.csv", b"time,station\nnoon,a\n", "has the type"),
    "time in nanoseconds": ("a.csv", b"time,station\n1480521600000000000,a\n", "out of range"),
    "time in nanoseconds, JSON": ("a.jsonl", b'{"time":1480521600000000000}\n', "`time` is"),
    "time is a truth": ("a.jsonl", b'{"time":{}}\n', "`time` is"),
    "time goes back": ("a.csv", b"time,station\n2,a\n3,a\n1,a\n", "row 3 is earlier"),
    "time goes back, JSON": ("a.jsonl", b'{"time":2}\n{"time":1}\n', "row 2 is earlier"),
    "number is text": ("a.csv", b"time,station,pm25\n1,a,high\n", "high"),
    "ragged": ("a.csv", b"time,station\n1,a\n2\n", "cannot be read"),
    "not gzip": ("a.csv.gz", b"time,station\n1,a\n", "cannot be read"),
    "half a gzip": ("a.jsonl.gz", gzip.compress(GOOD_LINE.encode() * 99)[:30], "cannot be read"),
    "not JSON": ("a.jsonl", GOOD_LINE.encode() + b"{time}\n", "line 2 is not a JSON object"),
    "not an object": ("a.jsonl", b"[1]\n", "line 1 is not a JSON object"),
    "not text": ("a.jsonl", b'{"time":0,"a":"\xff"}\n', "line 1 is not a JSON object"),
    "endless line": ("a.jsonl", b" " * (files.MAX_LINE + 2), "longer than"),
}


@pytest.mark.parametrize(("name", "content", "what"), WRONG.values(), ids=WRONG)
def test_an_invalid_file_is_rejected_before_the_first_reading(
    name: str, content: bytes, what: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        dataset(path)
    (problem,) = caught.value.problems
    assert what in problem.what
    assert path.name in problem.what
    assert problem.hint


def test_an_unknown_data_set_is_rejected_with_the_known_names(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=WINTER):
        dataset(tmp_path / "nothing.csv")
    with pytest.raises(ConfigError, match="contains no data file"):
        dataset(tmp_path)
