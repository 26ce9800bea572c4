"""Encodes a batch and its records as a Parquet file; the same rows yield the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stream_app.model.record import Batch, Code, Failure, Record
from stream_app.model.record_metadata import RecordMetadata, record_metadata
from stream_app.pipeline.user_code.column_names import RECORD_COLUMNS
from stream_app.pipeline.user_code.column_names import field_name as field_name
from stream_app.pipeline.user_code.column_names import stored_name as stored_name
from stream_app.sinks.columns import ArrowArray, Types, stored_column, stored_columns, text, to_arrow

IDENTITY = RECORD_COLUMNS
_NO_TYPES: Types = {}
# The rows that are sampled of a column, and the number of distinct values that is always small.
_SAMPLE, _FEW = 1_000, 8
# With this many rows, a dictionary of measurements saves time, and statistics of texts select nothing.
_MANY = 4_000
# Rows that a column's encoder processes at once: few enough to limit memory for long texts.
_AT_ONCE = 16_384
# Each byte with its bits reversed.
_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)), bitorder="little")


def to_table(
    batch: Batch, records: Sequence[Record], shard: str, types: Types = _NO_TYPES
) -> tuple[pa.Table, list[Failure]]:
    """Return the rows as a table, and a failure for each row that Parquet cannot store (text that is not Unicode).

    Columns: shard, sequence, sub, partition_key, arrived (timestamp[ms, UTC]), then `stored_columns(batch)`;
    a column with one of the first five names is renamed to `<event>_<name>`. `types` gives the Arrow types
    of columns of Python objects, by name.
    """
    refused: dict[int, str] = {}
    columns = {}
    for name in stored_columns(batch):
        columns[name], bad = stored_column(batch, name, types.get(name))
        for at in np.flatnonzero(bad).tolist() if bad is not None else ():
            refused.setdefault(at, name)
    identity = _identity(record_metadata(records), shard)
    if len(batch) < len(records):  # rows are unique
        identity = {name: column.take(batch.rows) for name, column in identity.items()}
    table = pa.table({**identity, **{stored_name(n, batch.event): c for n, c in columns.items()}})
    if not refused:
        return table, []
    kept = np.setdiff1d(np.arange(len(batch)), list(refused))
    return table.take(pa.array(kept)), [_failure(batch, at, name) for at, name in sorted(refused.items())]


def encode(table: pa.Table, metadata: Mapping[str, str]) -> bytes:
    """Encode the table as a Parquet file, compressed with zstd, with `metadata` in its key-value metadata.

    The encodings, PLAIN and RLE_DICTIONARY, are supported by every reader and depend on the rows alone.
    """
    sink = pa.BufferOutputStream()
    repeating = [field.name for field in table.schema if _repeats(table[field.name])]
    labelled = table.replace_schema_metadata(dict(sorted(metadata.items())))
    options: dict[str, object] = {
        "compression": "zstd",
        "use_dictionary": repeating,
        "version": "2.6",
        "write_statistics": _ranged(table),
        "write_batch_size": _AT_ONCE,
    }
    pq.write_table(labelled, sink, **options)
    return bytes(sink.getvalue())


def _ranged(table: pa.Table) -> list[str]:
    """Return the columns with statistics. A file has one row group, so a query skips all of it or nothing.

    Statistics of measurements do not help, and with many rows neither do those of ids, devices or repeated texts.
    """
    idle = {field.name for field in table.schema if pa.types.is_floating(field.type)}
    if len(table) >= _MANY:
        idle |= {field.name for field in table.schema if pa.types.is_string(field.type)} - {*IDENTITY[:2]}
    return [name for name in table.column_names if name not in idle]


def _repeats(column: pa.ChunkedArray) -> bool:
    """Whether texts, or measurements of many rows, repeat.

    Dictionary indexes are smaller and compress faster than 8 bytes each; a dictionary of ids would be as large as the
    column.
    """
    many = pa.types.is_floating(column.type) and len(column) >= _MANY
    if not many and not pa.types.is_string(column.type):
        return False
    sample = column.slice(0, _SAMPLE)
    return 2 * len(sample.unique()) <= len(sample) + _FEW


def rows_digest(table: pa.Table) -> str:
    """Return the SHA-256 (hex) of the table's names, types and values: equal for equal rows in any encoding.

    Floating-point numbers are compared by their bits.
    """
    digest = hashlib.sha256()
    for name, column in zip(table.column_names, table.columns, strict=True):
        digest.update(json.dumps([name, str(column.type), len(column)]).encode())
        values = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        digest.update(_validity(values).data)
        _add_values(digest, values.drop_null() if values.null_count else values)
    return digest.hexdigest()


def _validity(values: ArrowArray) -> NDArray[np.uint8]:
    """Return the validity bitmap with the first value in the highest bit; Arrow starts with the lowest."""
    if not values.null_count:
        return np.packbits(np.ones(len(values), dtype=np.bool_))
    bitmap = values.buffers()[0]
    if bitmap is None or values.offset:
        return np.packbits(values.is_valid().to_numpy(zero_copy_only=False))
    bits: NDArray[np.uint8] = _REVERSED[np.frombuffer(bitmap, dtype=np.uint8)[: -(-len(values) // 8)]]
    if len(values) % 8:
        bits[-1] &= 0xFF << (8 - len(values) % 8) & 0xFF
    return bits


def _add_values(digest: hashlib._Hash, values: ArrowArray) -> None:
    if pa.types.is_string(values.type):
        _add_text(digest, values)
    elif pa.types.is_timestamp(values.type):
        digest.update(values.cast(pa.int64()).to_numpy().astype("<i8", copy=False).data)
    elif pa.types.is_boolean(values.type):
        digest.update(np.packbits(values.to_numpy(zero_copy_only=False)).tobytes())
    else:
        array = values.to_numpy()
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).data)


def _add_text(digest: hashlib._Hash, values: ArrowArray) -> None:
    if len(values):
        _, offsets, data = values.buffers()
        ends = np.frombuffer(offsets, dtype=np.int32)[values.offset : values.offset + len(values) + 1]
        digest.update(np.diff(ends).astype("<i8").data)
        digest.update(data[int(ends[0]) : int(ends[-1])] if data is not None else b"")


def _identity(records: RecordMetadata, shard: str) -> dict[str, ArrowArray]:
    values = (
        pa.repeat(text([shard])[0], len(records)),
        records.sequences,
        pa.array(records.subs),
        records.keys,
        to_arrow(records.arrived.view("datetime64[ms]"))[0],
    )
    return dict(zip(IDENTITY, values, strict=True))


def _failure(batch: Batch, at: int, name: str) -> Failure:
    reason = f"{name} has no form in Parquet"
    return Failure(int(batch.rows[at]), "sink", Code.SINK_REJECTED, reason, batch.event)
