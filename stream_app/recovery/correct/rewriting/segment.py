"""One event file of a segment: read, compared row by row, and overwritten on its ETag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate, pairwise
from typing import Any

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

LAST_CORRECTED = "corrected-last"
CORRECTED_ROWS = "corrected-rows"
REPLACED_VERSION = "corrected-from"
# Rows that one rewrite corrects at most: S3 keeps 2 KB of metadata, and theirs name each of these rows.
MOST_ROWS = 250
TRIES = 5
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
class File:
    """One event file as it is now. `version` is S3's id of it, empty without versioning."""

    key: str
    etag: str
    version: str
    metadata: Mapping[str, str]
    table: pa.Table

    @property
    def corrections(self) -> int:
        """How many corrections were made in it."""
        return int(self.metadata.get(CORRECTED, "0"))

    def ends(self, shard: str) -> tuple[Position, Position]:
        """The positions of its first and last row."""
        at = (0, len(self.table) - 1)
        first, last = (
            Position(shard, self.table["sequence"][n].as_py(), self.table["sub"][n].as_py()) for n in at
        )
        return first, last

    def row(self, position: Position) -> int | None:
        """The row of a position, None where the file has none."""
        return self.rows([position])[0]

    def rows(self, positions: Sequence[Position]) -> list[int | None]:
        """The row of each position, None where the file has none."""
        compute: Any = pc
        wanted = pa.array(sorted({position.sequence for position in positions}), pa.string())
        some = compute.indices_nonzero(compute.is_in(self.table["sequence"], value_set=wanted))
        sequences, subs = (self.table[name].take(some).to_pylist() for name in ("sequence", "sub"))
        at = dict(zip(zip(sequences, subs, strict=True), some.to_pylist(), strict=True))
        return [at.get((position.sequence, position.sub)) for position in positions]

    def version_before(self, row: int, position: Position) -> str:
        """The version that held a corrected row uncorrected; empty where a later correction replaced that one."""
        if CORRECTED_ROWS in self.metadata:
            mine = row in _marked(self.metadata[CORRECTED_ROWS])
        else:
            mine = self.metadata.get(LAST_CORRECTED) == token(position)
        return self.metadata.get(REPLACED_VERSION, "") if mine else ""


def read(s3: Any, bucket: str, key: str, columns: Sequence[str] | None = None) -> File | None:
    """The file, with only some of its columns where these are given; None when there is none.

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
    return File(key, answer["ETag"], answer.get("VersionId", ""), answer["Metadata"], table)


def parse(body: bytes) -> Manifest:
    """The manifest in an object's body. Raises FatalError where there is none."""
    try:
        found = decoded(body, Manifest)
        position_from_token("", found.last.position)
    except ValueError as error:
        raise FatalError(f"the manifest of a segment cannot be read: {error}") from error
    return found


def same(row: pa.Table, wanted: pa.Table) -> bool:
    """Whether a stored row holds the values of another, to the last bit, in the columns that this one has."""
    fit = fitted(wanted, row)
    return fit is not None and bool(alike(row, fit).all())


def alike(rows: pa.Table, fit: pa.Table) -> Mask:
    """Which of the stored rows hold the values of others, to the last bit, in the columns that these have.

    `fit` are those in the stored types (`fitted`).
    """
    masks = [_equal(rows[name], fit[name]) for name in fit.column_names]
    found: Mask = np.logical_and.reduce(masks) if masks else np.ones(len(rows), dtype=np.bool_)
    return found


def fitted(rows: pa.Table, stored: pa.Table) -> pa.Table | None:
    """The rows in the types of a stored table; None where a column is missing in it, or a value has no form there."""
    try:
        arrays: Any = {name: rows[name].cast(stored.schema.field(name).type) for name in rows.column_names}
    except (KeyError, pa.ArrowException):
        return None
    return pa.table(arrays)


def _equal(one: Any, other: Any) -> Mask:
    """Floating-point numbers count by their bits."""
    valid, also = one.is_valid(), other.is_valid()
    if pa.types.is_floating(one.type):
        a, b = (column.fill_null(0).to_numpy() for column in (one, other))
        values = a.view(f"i{a.itemsize}") == b.view(f"i{b.itemsize}")
    else:
        compute: Any = pc
        values = compute.fill_null(compute.equal(one, other), True).to_numpy()
    equal: Mask = values & (valid.to_numpy() == also.to_numpy())
    return equal


def recorded(values: Mapping[str, Any], row: pa.Table) -> pa.Table:
    """Values as a history keeps them, in the types that a stored row has. Raises KeyError, ArrowException."""
    columns = {}
    for name, value in values.items():
        kind = row.schema.field(name).type
        is_time = pa.types.is_timestamp(kind) and isinstance(value, str)
        columns[name] = pa.array([datetime.fromisoformat(value) if is_time else value], kind)
    return pa.table(columns)


def overwrite(
    s3: Any, bucket: str, key: str, position: Position, before: pa.Table, after: pa.Table
) -> tuple[str, str] | None:
    """Replace a row that holds `before` with `after`; the version ids before and after.

    Safe to repeat, and beside other corrections of the file: read again, merged and tried again when somebody
    gets in between. None when the row holds neither. Raises TransientError when others keep getting in between.
    """
    for _ in range(TRIES):
        file = read(s3, bucket, key)
        at = None if file is None else file.row(position)
        if file is None or at is None:
            return None
        if same(file.table.slice(at, 1), after):
            return file.version_before(at, position), file.version
        if not same(file.table.slice(at, 1), before):
            return None
        written = replace(s3, bucket, file, [(at, after)])
        if written is not None:
            return file.version, written.version
    raise TransientError(f"s3://{bucket}/{key} changed {TRIES} times while it was being corrected")


def replace(s3: Any, bucket: str, file: File, rows: Sequence[tuple[int, pa.Table]]) -> File | None:
    """Overwrite rows of a file, at most MOST_ROWS: their numbers, ascending, each with a table of one row.

    Returns the file as it is then, None when it is no longer what was read. Raises what boto3 and Arrow raise.
    """
    at = [row for row, _ in rows]
    table = replaced(file.table, rows)
    labels = {name.decode(): value.decode() for name, value in (table.schema.metadata or {}).items()}
    marks = {
        DIGEST: rows_digest(table),
        CORRECTED: str(file.corrections + len(at)),
        LAST_CORRECTED: token(Position("", *(table[name][at[-1]].as_py() for name in ("sequence", "sub")))),
        CORRECTED_ROWS: _marks(at),
        REPLACED_VERSION: file.version,
    }
    try:
        answer = s3.put_object(
            Bucket=bucket,
            Key=file.key,
            Body=encode(table, labels),
            ContentType=_PARQUET,
            Metadata=marks,
            IfMatch=file.etag,
        )
    except Exception as error:
        if is_conflict(error) or aws_error_code(error) == "NoSuchKey":
            return None
        raise
    return File(file.key, answer["ETag"], str(answer.get("VersionId", "")), marks, table)


def replaced(table: pa.Table, rows: Sequence[tuple[int, pa.Table]]) -> pa.Table:
    """The table with other values in some of its rows, in the columns that these have; all else as it was.

    Raises ArrowException and KeyError where a value has no form in the table.
    """
    alike_ones: dict[tuple[str, ...], list[tuple[int, pa.Table]]] = {}
    for row, values in rows:  # an event's `calculate` may return a column only at times
        alike_ones.setdefault(tuple(values.column_names), []).append((row, values))
    for names, some in alike_ones.items():
        index = np.arange(len(table))
        index[[row for row, _ in some]] = len(table) + np.arange(len(some))
        columns = {name: table[name] for name in table.column_names}
        for name in names:
            kind = table.schema.field(name).type
            chunks = [chunk for _, values in some for chunk in values[name].cast(kind).chunks]
            both = pa.chunked_array([*table[name].chunks, *chunks], type=kind)
            columns[name] = both.take(pa.array(index)).combine_chunks()
        table = pa.Table.from_arrays(list(columns.values()), schema=table.schema)
    return table


def _marks(rows: Sequence[int]) -> str:
    """Row numbers, ascending, each as the distance from the one before."""
    return " ".join(str(row - before) for before, row in pairwise([0, *rows]))


def _marked(text: str) -> set[int]:
    return set(accumulate(map(int, text.split())))
