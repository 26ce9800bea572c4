"""Reads one event file of a segment, compares its rows, and overwrites it on its ETag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stream_app.aws.objects import CORRECTED, DIGEST
from stream_app.errors import FatalError, TransientError, aws_error_code, is_conflict
from stream_app.model.record import Mask, Position
from stream_app.model.segment import position_from_token, token
from stream_app.recovery.bounded import decoded
from stream_app.sinks.parquet import encode, rows_digest

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LAST_CORRECTED = "corrected-last"
CORRECTED_ROWS = "corrected-rows"
REPLACED_VERSION = "corrected-from"
# Rows per rewrite: the object's metadata, which S3 limits to 2 KB, lists the corrected rows.
MAX_ROWS = 250
MAX_ATTEMPTS = 5
_PARQUET = "application/vnd.apache.parquet"


class _Edge(msgspec.Struct, frozen=True):
    position: str


class _Stored(msgspec.Struct, frozen=True):
    key: str


class Manifest(msgspec.Struct, frozen=True):
    """The part of a manifest that a correction needs."""

    first: _Edge
    last: _Edge
    stored: dict[str, _Stored]


@dataclass(frozen=True, slots=True)
class EventFile:
    """One version of an event file. `version` is its S3 version ID, empty without versioning."""

    key: str
    etag: str
    version: str
    metadata: Mapping[str, str]
    table: pa.Table

    @property
    def corrections(self) -> int:
        """The number of corrections in the file."""
        return int(self.metadata.get(CORRECTED, "0"))

    def ends(self, shard: str) -> tuple[Position, Position]:
        """Return the positions of the first and the last row."""
        at = (0, len(self.table) - 1)
        first, last = (
            Position(shard, self.table["sequence"][n].as_py(), self.table["sub"][n].as_py()) for n in at
        )
        return first, last

    def row(self, position: Position) -> int | None:
        """Return the row of a position, None where the file has none."""
        return self.rows([position])[0]

    def rows(self, positions: Sequence[Position]) -> list[int | None]:
        """Return the row of each position, None where the file has none."""
        wanted = pa.array(sorted({position.sequence for position in positions}), pa.string())
        matches = pc.indices_nonzero(pc.is_in(self.table["sequence"], value_set=wanted))
        sequences, subs = (self.table[name].take(matches).to_pylist() for name in ("sequence", "sub"))
        at = dict(zip(zip(sequences, subs, strict=True), matches.to_pylist(), strict=True))
        return [at.get((position.sequence, position.sub)) for position in positions]

    def version_before(self, row: int, position: Position) -> str:
        """Return the version that held a corrected row before its correction.

        Empty where a later correction of the file replaced the metadata that names it.
        """
        if CORRECTED_ROWS in self.metadata:
            is_latest_version = row in _decode_rows(self.metadata[CORRECTED_ROWS])
        else:
            is_latest_version = self.metadata.get(LAST_CORRECTED) == token(position)
        return self.metadata.get(REPLACED_VERSION, "") if is_latest_version else ""


def read_file(s3: S3Client, bucket: str, key: str, columns: Sequence[str] | None = None) -> EventFile | None:
    """Read a file, or only some of its columns; return None when it does not exist.

    Raises what boto3 and Arrow raise.
    """
    try:
        answer = s3.get_object(Bucket=bucket, Key=key)
    except Exception as error:
        if aws_error_code(error) in ("NoSuchKey", "404"):
            return None
        raise
    stored = pq.ParquetFile(pa.BufferReader(answer["Body"].read()))
    names = None if columns is None else [n for n in stored.schema_arrow.names if n in set(columns)]
    table = stored.read(columns=names, use_threads=False)
    return EventFile(key, answer["ETag"], answer.get("VersionId", ""), answer["Metadata"], table)


def parse_manifest(body: bytes) -> Manifest:
    """Return the manifest in an object's body. Raises FatalError for any other content."""
    try:
        found = decoded(body, Manifest)
        position_from_token("", found.last.position)
    except ValueError as error:
        raise FatalError(f"cannot read the manifest of a segment: {error}") from error
    return found


def holds_values(row: pa.Table, wanted: pa.Table) -> bool:
    """Return whether a stored row has the values of `wanted`, bit by bit.

    Only the columns of `wanted` are compared.
    """
    values = cast_like(wanted, row)
    return values is not None and bool(matching_rows(row, values).all())


def matching_rows(rows: pa.Table, values: pa.Table) -> Mask:
    """Return which stored rows hold the given values, bit by bit, in the columns of `values`.

    `values` have the stored types (`cast_like`).
    """
    masks = [_equal_bits(rows[name], values[name]) for name in values.column_names]
    found: Mask = np.logical_and.reduce(masks) if masks else np.ones(len(rows), dtype=np.bool_)
    return found


def cast_like(rows: pa.Table, stored: pa.Table) -> pa.Table | None:
    """Cast rows to the column types of a stored table.

    Returns None where the table lacks a column, or a value does not fit its type.
    """
    try:
        arrays = {name: rows[name].cast(stored.schema.field(name).type) for name in rows.column_names}
    except (KeyError, pa.ArrowException):
        return None
    return pa.table(arrays)


def _equal_bits(one: pa.ChunkedArray, other: pa.ChunkedArray) -> Mask:
    """Compare two columns; floating-point numbers are compared by their bits."""
    valid, other_valid = one.is_valid(), other.is_valid()
    if pa.types.is_floating(one.type):
        a, b = (column.fill_null(0).to_numpy() for column in (one, other))
        values = a.view(f"i{a.itemsize}") == b.view(f"i{b.itemsize}")
    else:
        values = pc.fill_null(pc.equal(one, other), True).to_numpy()
    equal: Mask = values & (valid.to_numpy() == other_valid.to_numpy())
    return equal


def recorded_row(values: Mapping[str, object], row: pa.Table) -> pa.Table:
    """Return a history's values as a table of one row, in the types of a stored row.

    Raises KeyError and ArrowException.
    """
    columns = {}
    for name, value in values.items():
        kind = row.schema.field(name).type
        is_time = pa.types.is_timestamp(kind) and isinstance(value, str)
        columns[name] = pa.array([datetime.fromisoformat(str(value)) if is_time else value], kind)
    return pa.table(columns)


def overwrite_row(
    s3: S3Client, bucket: str, key: str, position: Position, before: pa.Table, after: pa.Table
) -> tuple[str, str] | None:
    """Replace a row that holds `before` with `after`; return the version IDs before and after.

    Idempotent, also concurrently with other corrections of the file: it reads, merges and writes again when another
    process changes the file. Returns None when the row holds neither value. Raises TransientError after
    MAX_ATTEMPTS such changes.
    """
    for _ in range(MAX_ATTEMPTS):
        file = read_file(s3, bucket, key)
        at = None if file is None else file.row(position)
        if file is None or at is None:
            return None
        if holds_values(file.table.slice(at, 1), after):
            return file.version_before(at, position), file.version
        if not holds_values(file.table.slice(at, 1), before):
            return None
        written = overwrite_rows(s3, bucket, file, [(at, after)])
        if written is not None:
            return file.version, written.version
    raise TransientError(f"s3://{bucket}/{key} changed {MAX_ATTEMPTS} times while it was being corrected")


def overwrite_rows(
    s3: S3Client, bucket: str, file: EventFile, rows: Sequence[tuple[int, pa.Table]]
) -> EventFile | None:
    """Overwrite rows of a file; return the new version, None if it changed since it was read.

    `rows` are ascending indexes, at most MAX_ROWS, each with a table of one row. Raises what boto3 and Arrow raise.
    """
    at = [row for row, _ in rows]
    table = with_rows_replaced(file.table, rows)
    labels = {name.decode(): value.decode() for name, value in (table.schema.metadata or {}).items()}
    metadata = {
        DIGEST: rows_digest(table),
        CORRECTED: str(file.corrections + len(at)),
        LAST_CORRECTED: token(Position("", *(table[name][at[-1]].as_py() for name in ("sequence", "sub")))),
        CORRECTED_ROWS: _encode_rows(at),
        REPLACED_VERSION: file.version,
    }
    try:
        answer = s3.put_object(
            Bucket=bucket,
            Key=file.key,
            Body=encode(table, labels),
            ContentType=_PARQUET,
            Metadata=metadata,
            IfMatch=file.etag,
        )
    except Exception as error:
        if is_conflict(error) or aws_error_code(error) == "NoSuchKey":
            return None
        raise
    return EventFile(file.key, answer["ETag"], str(answer.get("VersionId", "")), metadata, table)


def with_rows_replaced(table: pa.Table, rows: Sequence[tuple[int, pa.Table]]) -> pa.Table:
    """Return the table with the given values in some of its rows and columns.

    Raises ArrowException and KeyError where a value does not fit the table.
    """
    by_columns: dict[tuple[str, ...], list[tuple[int, pa.Table]]] = {}
    for row, values in rows:  # an event's `calculate` may return a column for some rows only
        by_columns.setdefault(tuple(values.column_names), []).append((row, values))
    for names, changed in by_columns.items():
        index = np.arange(len(table))
        index[[row for row, _ in changed]] = len(table) + np.arange(len(changed))
        columns = {name: table[name] for name in table.column_names}
        for name in names:
            kind = table.schema.field(name).type
            chunks = [chunk for _, values in changed for chunk in values[name].cast(kind).chunks]
            both = pa.chunked_array([*table[name].chunks, *chunks], type=kind)
            columns[name] = both.take(pa.array(index)).combine_chunks()
        table = pa.Table.from_arrays(list(columns.values()), schema=table.schema)
    return table


def _encode_rows(rows: Sequence[int]) -> str:
    """Encode ascending row numbers, each as the difference from the one before."""
    return " ".join(str(row - before) for before, row in pairwise([0, *rows]))


def _decode_rows(text: str) -> set[int]:
    return set(accumulate(map(int, text.split())))
