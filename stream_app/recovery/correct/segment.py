"""The segment that holds a position: found through its manifest, read, and overwritten on its ETag."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from stream_app.errors import FatalError, TransientError, code_of, is_conflict
from stream_app.record import Position
from stream_app.recovery.bounded import decoded
from stream_app.sinks import objects
from stream_app.sinks.objects import CORRECTED, DIGEST
from stream_app.sinks.parquet import encode, rows_digest
from stream_app.sinks.s3 import EVENTS, SEGMENTS
from stream_app.sinks.segment import from_token, instant, token

LAST_CORRECTED = "corrected-last"
REPLACED_VERSION = "corrected-from"
_TRIES = 5
_HOUR = timedelta(hours=1)
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
        for at, sequence in enumerate(self.table["sequence"].to_pylist()):
            if sequence == position.sequence and self.table["sub"][at].as_py() == position.sub:
                return at
        return None


def find(
    s3: Any, bucket: str, consumer: str, event: str, position: Position, arrived: int
) -> Manifest | None:
    """The manifest that covers a position, None while there is none. Lists three hours of one shard's files.

    Its segment is named after a record that arrived in the same hour or the one before; arrival times may go back
    a little, so the hour after is looked at as well.
    """
    hours = [arrived + offset * 3_600_000 for offset in (1, 0, -1)]
    for order, first in (pair for at in hours for pair in _hour(s3, bucket, event, position.shard, at)):
        if order <= position.order:
            body = objects.get(s3, bucket, f"{SEGMENTS}{consumer}/{position.shard}/{first}.json")
            found = None if body is None else parse(body)
            if found is None or from_token("", found.last.position).order < position.order:
                return None
            return found
    return None


def parse(body: bytes) -> Manifest:
    """The manifest in an object's body. Raises FatalError where there is none."""
    try:
        found = decoded(body, Manifest)
        from_token("", found.last.position)
    except ValueError as error:
        raise FatalError(f"the manifest of a segment cannot be read: {error}") from error
    return found


def earlier(s3: Any, bucket: str, event: str, position: Position, arrived: int, hours: int) -> Iterator[str]:
    """Keys of the shard's files that begin before a position, the latest first, over so many hours and one more."""
    for back in range(-1, hours + 1):
        for order, first in _hour(s3, bucket, event, position.shard, arrived - back * 3_600_000):
            if order < position.order:
                yield _event_key(event, position.shard, first, arrived - back * 3_600_000)


def later(s3: Any, bucket: str, event: str, position: Position, arrived: int, hours: int) -> Iterator[str]:
    """Keys of the shard's files that begin after a position, in order, over so many hours and one before."""
    for on in range(-1, hours + 1):
        for order, first in reversed(_hour(s3, bucket, event, position.shard, arrived + on * 3_600_000)):
            if order > position.order:
                yield _event_key(event, position.shard, first, arrived + on * 3_600_000)


def _prefix(event: str, shard: str, milliseconds: int) -> str:
    at = instant(milliseconds)
    return f"{EVENTS}{event}/date={at:%Y-%m-%d}/hour={at:%H}/{shard}-"


def _event_key(event: str, shard: str, first: str, milliseconds: int) -> str:
    return f"{_prefix(event, shard, milliseconds)}{first}.parquet"


def _hour(
    s3: Any, bucket: str, event: str, shard: str, milliseconds: int
) -> list[tuple[tuple[int, int], str]]:
    """The files of one hour by their first position, the latest first."""
    prefix, found = _prefix(event, shard, milliseconds), []
    for key in objects.keys(s3, bucket, prefix):
        first = key.removeprefix(prefix).removesuffix(".parquet")
        try:
            found.append((from_token(shard, first).order, first))
        except ValueError:
            continue  # a file that is not ours
    return sorted(found, reverse=True)


def read(s3: Any, bucket: str, key: str) -> File | None:
    """The file, None when there is none. Raises what boto3 and Arrow raise."""
    try:
        answer = s3.get_object(Bucket=bucket, Key=key)
    except Exception as error:
        if code_of(error) in ("NoSuchKey", "404"):
            return None
        raise
    table = pq.read_table(pa.BufferReader(answer["Body"].read()), use_threads=False)
    return File(key, answer["ETag"], answer.get("VersionId", ""), answer["Metadata"], table)


def same(row: pa.Table, wanted: pa.Table) -> bool:
    """Whether a stored row holds the values of another, to the last bit, in the columns that this one has."""
    try:
        return rows_digest(row.select(wanted.column_names)) == rows_digest(_as_stored(wanted, row))
    except (KeyError, pa.ArrowException):
        return False


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
    for _ in range(_TRIES):
        file = read(s3, bucket, key)
        at = None if file is None else file.row(position)
        if file is None or at is None:
            return None
        if same(file.table.slice(at, 1), after):
            mine = file.metadata.get(LAST_CORRECTED) == token(position)
            return (file.metadata.get(REPLACED_VERSION, "") if mine else ""), file.version
        if not same(file.table.slice(at, 1), before):
            return None
        version = _put(s3, bucket, file, replaced(file.table, at, after), position)
        if version is not None:
            return file.version, version
    raise TransientError(f"s3://{bucket}/{key} changed {_TRIES} times while it was being corrected")


def replaced(table: pa.Table, at: int, row: pa.Table) -> pa.Table:
    """The table with the values of `row` in row `at`; all else as it was. Raises ArrowException, KeyError."""
    new = _as_stored(row, table)
    for name in row.column_names:
        old, index = table[name], table.column_names.index(name)
        chunks = [*old.slice(0, at).chunks, *new[name].chunks, *old.slice(at + 1).chunks]
        column = pa.chunked_array(chunks, type=old.type).combine_chunks()
        table = table.set_column(index, table.schema.field(name), column)
    return table


def _as_stored(row: pa.Table, table: pa.Table) -> pa.Table:
    """The row in the table's types."""
    arrays: Any = {name: row[name].cast(table.schema.field(name).type) for name in row.column_names}
    return pa.table(arrays)


def _put(s3: Any, bucket: str, file: File, table: pa.Table, position: Position) -> str | None:
    """The new version's id; None when the object is no longer what was read."""
    labels = {name.decode(): value.decode() for name, value in (table.schema.metadata or {}).items()}
    marks = {
        DIGEST: rows_digest(table),
        CORRECTED: str(file.corrections + 1),
        LAST_CORRECTED: token(position),
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
        if is_conflict(error) or code_of(error) == "NoSuchKey":
            return None
        raise
    return str(answer.get("VersionId", ""))
