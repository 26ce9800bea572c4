"""Parquet files: the same rows give the same bytes, and the digest tells rows apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream_app.model.record import Batch, Code
from stream_app.pipeline.values.schema import compile_schema
from stream_app.sinks.columns import column_types, stored_columns, to_arrow
from stream_app.sinks.parquet import encode, rows_digest, to_table
from tests.unit.test_sink_segment import ARRIVED, BASE, SHARD, batch, record

FLOATS = st.floats(width=64) | st.sampled_from([0.0, -0.0, float("nan")])
TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
TIMES = st.none() | st.integers(0, 4_000_000_000_000)
ROWS = st.lists(st.tuples(FLOATS, TEXTS, TIMES, st.booleans(), st.integers(-5, 5)), min_size=1, max_size=12)


def made(rows: list[tuple[Any, ...]]) -> Batch:
    number, text, time, flag, whole = zip(*rows, strict=True)
    columns: dict[str, NDArray[Any]] = {
        "number": np.array(number),
        "text": np.array(text, dtype=object),
        "time": np.array(
            [np.datetime64("NaT") if t is None else np.datetime64(t, "ms") for t in time]
        ).astype("datetime64[ms]"),
        "flag": np.array(flag),
        "whole": np.array(whole),
    }
    return Batch("air_quality", columns, np.arange(len(rows), dtype=np.int64))


def table_of(rows: list[tuple[Any, ...]]) -> pa.Table:
    return to_table(made(rows), [record(at) for at in range(len(rows))], SHARD)[0]


def bits(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The rows with floats by their bits, all NaN alike, which is how the digest sees them."""
    plain = [np.float64("nan") if row[0] != row[0] else np.float64(row[0]) for row in rows]
    return [(number.tobytes(), *row[1:]) for number, row in zip(plain, rows, strict=True)]


@given(ROWS)
@settings(max_examples=50)
def test_encoding_is_deterministic_and_keeps_every_value(rows: list[tuple[Any, ...]]) -> None:
    table = table_of(rows)
    body = encode(table, {"event": "air_quality", "consumer": "air"})
    assert body == encode(table_of(rows), {"consumer": "air", "event": "air_quality"})
    read = pq.read_table(pa.BufferReader(body))
    assert read.replace_schema_metadata(None).equals(table.replace_schema_metadata(None))
    assert [None if n != n else n for n, *_ in rows] == read["number"].to_pylist()
    assert [text for _, text, *_ in rows] == read["text"].to_pylist()
    assert [row[2] for row in rows] == read["time"].cast(pa.int64()).to_pylist()
    assert [row[3:] for row in rows] == list(
        zip(read["flag"].to_pylist(), read["whole"].to_pylist(), strict=True)
    )


@given(ROWS, ROWS, st.booleans())
@settings(max_examples=150)
def test_the_digest_is_equal_only_for_equal_rows(
    one: list[tuple[Any, ...]], other: list[tuple[Any, ...]], near: bool
) -> None:
    if near:  # two that differ in one row at most are the hard case
        other = [*one[:-1], other[0]]
    same = rows_digest(table_of(one)) == rows_digest(table_of(other))
    assert same == (bits(one) == bits(other))


def test_the_digest_separates_nulls_empty_text_and_adjacent_text() -> None:
    def digest(*values: str | None) -> str:
        return rows_digest(pa.table({"text": pa.array(values, pa.string())}))

    assert (
        len({digest("", None), digest(None, ""), digest("", ""), digest("a", "bc"), digest("ab", "c")}) == 5
    )


def test_the_digest_does_not_depend_on_the_chunks_of_the_table() -> None:
    table = to_table(batch("parcel", range(6)), [record(at) for at in range(6)], SHARD)[0]
    pieces = pa.concat_tables([table.slice(0, 2), table.slice(2, 4)])
    assert rows_digest(pieces) == rows_digest(table)
    assert rows_digest(table.slice(1, 3)) == rows_digest(pieces.slice(1, 3)) != rows_digest(table.slice(0, 3))


def every_kind() -> pa.Table:
    """Columns of every type that is stored, with nulls and without."""
    rows = range(37)
    floats = [None if at % 5 == 0 else at / 3 for at in rows]
    return pa.table(
        {
            "number": pa.array(floats, pa.float64()),
            "single": pa.array(floats, pa.float32()),
            "whole": pa.array([None if at % 7 == 0 else at - 9 for at in rows], pa.int64()),
            "flag": pa.array([None if at % 11 == 0 else at % 2 == 0 for at in rows], pa.bool_()),
            "time": pa.array([None if at % 3 == 0 else at * 1_000 for at in rows], pa.timestamp("ms", "UTC")),
            "text": pa.array([None if at % 4 == 0 else "é" * (at % 3) for at in rows], pa.string()),
            "full": pa.array([f"d{at}" for at in rows], pa.string()),
            "none": pa.array([None for _ in rows], pa.string()),
        }
    )


def test_the_digest_is_the_one_that_stored_objects_carry() -> None:
    table = every_kind()
    whole = "8c0f90e51e37d8c266e0fea1c1364f35c3d736e60cad7668ec0a37acd4aa7244"
    assert rows_digest(table) == rows_digest(pa.concat_tables([table.slice(0, 5), table.slice(5)])) == whole
    part = "0e52443401a3c24c217690c2ceaced35ad265f3aa1bf47fafc1c421d11b842fd"
    assert rows_digest(table.slice(3, 20)) == part
    nothing = "0f5fd9f7825e6ce354f7c5bd1a107a8b8b0753eb0ab50bfee838fe07fcf4d65d"
    assert rows_digest(table.slice(0, 0)) == nothing


@given(st.lists(FLOATS, min_size=1, max_size=5), st.sampled_from([np.float64, np.float32]))
@settings(max_examples=10)
def test_repeated_measurements_keep_their_bits_in_widely_supported_encodings(
    values: list[float], kind: type[Any]
) -> None:
    with np.errstate(over="ignore"):
        few = np.resize(np.array([0.0, -0.0, *values]).astype(kind), 5_000)
    columns = {"few": few, "many": np.arange(5_000) / 3, "id": np.arange(5_000).astype("U").astype(object)}
    rows = Batch("air_quality", columns, np.arange(5_000))
    table, _ = to_table(rows, [record(at) for at in range(5_000)], SHARD)
    body = encode(table, {})
    assert body == encode(pa.Table.from_batches(table.to_batches()), {})
    read = pq.read_table(pa.BufferReader(body))
    assert rows_digest(read) == rows_digest(table)
    group = pq.read_metadata(pa.BufferReader(body)).row_group(0)
    stored = {c.path_in_schema: c for c in map(group.column, range(group.num_columns))}
    assert {"PLAIN", "RLE", "RLE_DICTIONARY"} >= {e for column in stored.values() for e in column.encodings}
    coded = {name for name, column in stored.items() if column.has_dictionary_page}
    assert coded == {"shard", "partition_key", "few"}
    ranged = {
        name for name, column in stored.items() if column.is_stats_set and column.statistics.has_min_max
    }
    assert ranged == {"shard", "sequence", "sub", "arrived"}


def test_the_columns_are_identity_then_event_then_score_and_anomaly() -> None:
    rows = [1, 4]
    table, refused = to_table(batch("air_quality", rows), [record(at) for at in range(5)], SHARD)
    assert not refused
    identity, event = table.column_names[:5], table.column_names[5:]
    assert identity == ["shard", "sequence", "sub", "partition_key", "arrived"]
    assert event == ["id", "station", "time", "pm25", "wind", "aqi", "score", "anomaly"]
    assert table["sequence"].to_pylist() == [str(BASE + row) for row in rows]
    assert table["arrived"].cast(pa.int64()).to_pylist() == [ARRIVED + row for row in rows]
    assert table.schema.field("arrived").type == table.schema.field("time").type == pa.timestamp("ms", "UTC")
    metadata = {"event": "air_quality", "schema": "ab"}
    stored = pq.read_schema(pa.BufferReader(encode(table, metadata))).metadata
    assert {key: stored[key.encode()].decode() for key in metadata} == metadata


def test_a_field_named_like_an_identity_column_keeps_a_column() -> None:
    columns = {"shard": np.array(["mine"], dtype=object), "sub": np.array([9])}
    table, _ = to_table(Batch("parcel", columns, np.array([0])), [record(0)], SHARD)
    assert (table["shard"][0].as_py(), table["parcel_shard"][0].as_py()) == (SHARD, "mine")
    assert (table["sub"][0].as_py(), table["parcel_sub"][0].as_py()) == (0, 9)


@given(st.sets(st.integers(0, 5)))
def test_text_that_is_not_unicode_is_rejected_row_by_row(bad: set[int]) -> None:
    text = np.array(["\ud800" if at in bad else f"t{at}" for at in range(6)], dtype=object)
    whole = batch("air_quality", range(6)).with_columns({"text": text})
    table, refused = to_table(whole, [record(at) for at in range(6)], SHARD)
    assert [f.row for f in refused] == sorted(bad)
    assert {(f.code, f.event, f.reason) for f in refused} <= {
        (Code.SINK_REJECTED, "air_quality", "text has no form in Parquet")
    }
    assert table["text"].to_pylist() == [f"t{at}" for at in range(6) if at not in bad]
    assert table["aqi"].to_pylist() == [at for at in range(6) if at not in bad]


def objects(*values: Any) -> NDArray[Any]:
    return np.fromiter(values, dtype=object, count=len(values))


def test_objects_become_the_simplest_type_that_holds_them_all() -> None:
    cases: list[tuple[tuple[Any, ...], pa.DataType, list[Any]]] = [
        ((None, None), pa.string(), [None, None]),
        (("a", None), pa.string(), ["a", None]),
        ((1, None), pa.int64(), [1, None]),
        ((True, None), pa.bool_(), [True, None]),
        ((2**70, 1), pa.string(), [str(2**70), "1"]),
        ((1.5, None, float("nan"), 2), pa.float64(), [1.5, None, None, 2.0]),
        ((np.float64(1.5), np.int64(2)), pa.float64(), [1.5, 2.0]),
        (("a", 1), pa.string(), ["a", "1"]),
        (([1, 2], {"b": 1, "a": None}), pa.string(), ["[1,2]", '{"a":null,"b":1}']),
        ((float("nan"), "a"), pa.string(), [None, "a"]),
    ]
    for values, kind, expected in cases:
        array, bad = to_arrow(objects(*values))
        assert (array.type, array.to_pylist(), bad) == (kind, expected, None), values


@given(st.lists(FLOATS | TIMES, min_size=2, max_size=8))
def test_a_column_missing_in_some_batches_keeps_its_type(values: list[Any]) -> None:
    numbers = np.array([value if isinstance(value, float) else 0.5 for value in values])
    times = np.array([0 if isinstance(value, float | None) else value for value in values], "datetime64[ms]")
    for column in (numbers, times, times.astype("datetime64[us]") + 1, numbers > 1, numbers.astype("U")):
        whole, _ = to_arrow(column)
        missing = np.full(1, None, dtype=object)
        joined, bad = to_arrow(np.concatenate([column.astype(object), missing]))
        assert bad is None
        if whole.null_count < len(whole):
            assert joined.slice(0, len(whole)).equals(whole)


def test_declared_types_do_not_change_with_the_values() -> None:
    raw = {
        "type": "record",
        "name": "reading",
        "fields": [
            {"name": "count", "type": ["null", "long"]},
            {"name": "wet", "type": ["null", "boolean"]},
            {"name": "name", "type": ["null", "string"]},
            {"name": "tags", "type": {"type": "array", "items": "string"}},
        ],
    }
    types = column_types(compile_schema(raw, "reading.avsc").fields)
    for name, value, stored in (
        ("count", 3, 3),
        ("wet", True, True),
        ("name", "x", "x"),
        ("tags", ["x"], '["x"]'),
    ):
        empty, _ = to_arrow(objects(None, None), types[name])
        full, bad = to_arrow(objects(value, None), types[name])
        assert empty.type == full.type
        assert (full.to_pylist(), bad) == ([stored, None], None)
    _, bad = to_arrow(objects(1, "one", None), types["count"])
    assert bad is not None
    assert bad.tolist() == [False, True, False]


def test_less_common_numpy_types_are_stored() -> None:
    for column, expected in (
        (np.array([1.5, np.nan], dtype=np.float16), [1.5, None]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([1, 2], dtype="timedelta64[ms]"), None),
        (np.array([1 + 2j]), ['"(1+2j)"']),
    ):
        array, bad = to_arrow(column)
        assert bad is None
        assert len(array) == len(column)
        if expected is not None:
            assert array.to_pylist() == expected
        pq.write_table(pa.table({"x": array}), pa.BufferOutputStream())
    for unit, stored in (("D", "ms"), ("s", "ms"), ("ms", "ms"), ("us", "us"), ("ns", "ns")):
        array, _ = to_arrow(np.array(["2016-12-01", "NaT"], dtype=f"datetime64[{unit}]"))
        assert array.type == pa.timestamp(stored, "UTC")
        assert array.cast(pa.timestamp("ms", "UTC")).cast(pa.int64()).to_pylist() == [ARRIVED, None]


def test_helper_columns_are_not_stored() -> None:
    assert not {"window.pm25", "previous.pm25", "arrived"} & set(stored_columns(batch("air_quality", [0])))


def test_a_partition_key_that_is_not_unicode_is_stored_with_replacements() -> None:
    table, refused = to_table(batch("air_quality", [0]), [record(0, key="a\ud800b")], SHARD)
    assert not refused
    assert table["partition_key"].to_pylist() == ["a?b"]
