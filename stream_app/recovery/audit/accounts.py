"""Reads the positions that the bucket accounts for: in event files, manifests and failures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stream_app.aws.objects import get
from stream_app.model.record import IntVector
from stream_app.model.segment import TOKEN, position_from_token
from stream_app.recovery.audit.accepted import Tokens
from stream_app.recovery.audit.inventory import Files
from stream_app.recovery.bounded import decoded
from stream_app.recovery.store import load

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

A = TypeVar("A")
T = TypeVar("T")
Origin = tuple[str, str]  # consumer and stream
NO_CODE = "UNKNOWN"
_TOKEN = f"^(?:{TOKEN.pattern})$"


class Kind(IntEnum):
    """How a position is accounted for; of several accounts, the one with the lowest value counts."""

    STORED = 0
    REPEATED = 1
    PARKED = 2


class Source(NamedTuple):
    """An object that accounts for positions, and how; `code` is the failure code of parked ones."""

    key: str
    kind: Kind
    code: str = ""


Strays = Sequence[tuple[Source, Tokens]]


class Manifest(msgspec.Struct, frozen=True):
    """The part of a segment's manifest that an audit needs; positions are tokens."""

    repeated: list[str]
    parked: dict[str, list[str]]


@dataclass(slots=True)
class Accounts:
    """The accounts of the positions of one shard.

    `announced` holds, by position, the failure code under which a manifest lists it as parked; its dead letter may
    not have been processed yet. `unreadable` lists the keys of objects that could not be read.
    """

    sources: list[Source] = field(default_factory=list)
    parts: list[Tokens] = field(default_factory=list)
    announced: dict[str, str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    def add(self, source: Source, tokens: Tokens) -> None:
        """Add the positions (tokens) that an object accounts for."""
        if len(tokens):
            self.sources.append(source)
            self.parts.append(tokens)

    @property
    def tokens(self) -> Tokens:
        """The position of every account."""
        return pa.concat_arrays(self.parts) if self.parts else pa.array([], pa.string())

    @property
    def source(self) -> IntVector:
        """The index in `sources` of every account, shape (n,)."""
        lengths = [len(part) for part in self.parts]
        return np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)


def accounts(
    s3: S3Client,
    bucket: str,
    origin: Origin,
    files: Files,
    strays: Strays,
    oldest: str | None,
    threads: Executor,
) -> Accounts:
    """Read the objects that account for one shard's positions.

    Reads manifests from `oldest` (a token) on. `strays` are accounts from files whose names do not contain the
    shard. Raises what boto3 raises; an object that was deleted meanwhile accounts for nothing.
    """
    found = Accounts()
    for source, tokens in strays:
        found.add(source, tokens)
    reading = partial(_try, partial(stored_positions, s3, bucket, origin))
    for key, table in zip(files.events, threads.map(reading, files.events), strict=True):
        if table is None:
            found.unreadable.append(key)
        else:
            found.add(Source(key, Kind.STORED), tokens_of(table))
    _add_manifests(found, s3, bucket, _from(files.manifests, oldest), threads)
    _add_parked(found, s3, bucket, files.failures, threads)
    return found


def stray_accounts(
    s3: S3Client, bucket: str, origin: Origin, keys: Sequence[str]
) -> tuple[dict[str, list[tuple[Source, Tokens]]], list[str]]:
    """Read event files whose names do not contain the shard.

    Returns the accounts by shard, and the keys of unreadable files.
    """
    found: dict[str, list[tuple[Source, Tokens]]] = {}
    unreadable = []
    for key in keys:
        table = _try(partial(stored_positions, s3, bucket, origin), key)
        if table is None:
            unreadable.append(key)
            continue
        shards: list[str] = table["shard"].unique().to_pylist()
        for shard in shards:
            part = table.filter(pc.equal(table["shard"], shard))
            found.setdefault(shard, []).append((Source(key, Kind.STORED), tokens_of(part)))
    return found, unreadable


def stored_positions(s3: S3Client, bucket: str, origin: Origin, key: str) -> pa.Table:
    """Return the columns shard, sequence and sub of an event file.

    Returns no rows where another consumer or stream wrote it. Raises ValueError or KeyError when it is not an event
    file.
    """
    empty = pa.table({name: pa.array([], pa.string()) for name in ("shard", "sequence", "sub")})
    body = get(s3, bucket, key)
    if body is None:
        return empty
    file = pq.ParquetFile(pa.BufferReader(body))
    metadata = file.schema_arrow.metadata or {}
    for name, value in zip((b"consumer", b"stream"), origin, strict=True):
        if metadata.get(name, value.encode()) != value.encode():
            return empty
    table = file.read(columns=["shard", "sequence", "sub"], use_threads=False).select(
        ["shard", "sequence", "sub"]
    )
    check_tokens(tokens_of(table))
    if table["shard"].null_count or not pa.types.is_string(table["shard"].type):
        raise ValueError("the column shard is not complete text")
    return table


def tokens_of(table: pa.Table) -> Tokens:
    """Return the position of each row of a table of `stored_positions`, as tokens."""
    subs = table["sub"].cast(pa.string())
    joined = pc.binary_join_element_wise(table["sequence"].cast(pa.string()), subs, ".")
    chosen = pc.if_else(pc.equal(subs, "0"), table["sequence"].cast(pa.string()), joined)
    return chosen.combine_chunks() if isinstance(chosen, pa.ChunkedArray) else chosen


def _add_manifests(
    found: Accounts, s3: S3Client, bucket: str, keys: Sequence[str], threads: Executor
) -> None:
    reading = partial(_try, partial(_decoded, s3, bucket))
    for key, manifest in zip(keys, threads.map(reading, keys), strict=True):
        if manifest is None:
            found.unreadable.append(key)
            continue
        found.add(Source(key, Kind.REPEATED), pa.array(manifest.repeated, pa.string()))
        found.announced.update({at: code for code, parked in manifest.parked.items() for at in parked})


def _add_parked(
    found: Accounts, s3: S3Client, bucket: str, failures: Sequence[tuple[str, str]], threads: Executor
) -> None:
    """Add parked positions; a failure object is read only if no manifest has its code."""
    unknown = [key for key, at in failures if at not in found.announced]
    codes = dict(zip(unknown, threads.map(partial(_code, s3, bucket), unknown), strict=True))
    for key, at in failures:
        code = found.announced.get(at) or codes[key]
        found.add(Source(key, Kind.PARKED, code), pa.array([at], pa.string()))


def _decoded(s3: S3Client, bucket: str, key: str) -> Manifest:
    body = get(s3, bucket, key)
    return Manifest([], {}) if body is None else manifest_of(body)


def manifest_of(body: bytes) -> Manifest:
    """Return the manifest in an object's body.

    Raises ValueError for other content, or where it contains an invalid position.
    """
    manifest = decoded(body, Manifest)
    check_tokens(pa.array([*manifest.repeated, *chain.from_iterable(manifest.parked.values())], pa.string()))
    return manifest


def check_tokens(tokens: Tokens) -> None:
    """Raise ValueError where one of the tokens is not a position."""
    if not pc.all(pc.match_substring_regex(tokens, _TOKEN), min_count=0, skip_nulls=False).as_py():
        raise ValueError("it contains an invalid position")


def _code(s3: S3Client, bucket: str, key: str) -> str:
    body = get(s3, bucket, key)
    failure = _try(load, body) if body is not None else None
    return failure.code if failure is not None else NO_CODE


def _try(read: Callable[[A], T], source: A) -> T | None:
    try:
        return read(source)
    except (ValueError, KeyError, TypeError, OSError, NotImplementedError, RecursionError, MemoryError):
        # Arrow and msgspec raise any of these for invalid bytes.
        return None


def _from(manifests: Sequence[str], oldest: str | None) -> list[str]:
    """Return a shard's manifests in order, from the one that may contain `oldest`; none without it."""
    if oldest is None:
        return []
    bound = position_from_token("", oldest).order
    found: Mapping[str, tuple[int, int] | None] = {key: _order(key) for key in manifests}
    ordered = sorted((order, key) for key, order in found.items() if order is not None)
    before = sum(order <= bound for order, _ in ordered)
    return [key for _, key in ordered[max(0, before - 1) :]]


def newest_manifest(manifests: Sequence[str]) -> str | None:
    """Return the manifest of the last segment of a shard."""
    return max(
        ((order, key) for key in manifests if (order := _order(key)) is not None), default=(None, None)
    )[1]


def token_order(text: str) -> tuple[int, int]:
    """Return the sort key of a position. Raises ValueError where the text is not a token."""
    return position_from_token("", text).order


def _order(key: str) -> tuple[int, int] | None:
    try:
        return token_order(key.rpartition("/")[2].removesuffix(".json"))
    except ValueError:
        return None
