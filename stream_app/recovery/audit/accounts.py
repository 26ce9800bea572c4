"""What the bucket accounts for: positions in Parquet files, in manifests, and in the failure store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, TypeVar

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

T = TypeVar("T")
Origin = tuple[str, str]  # consumer and stream
NO_CODE = "UNKNOWN"
_TOKEN = f"^(?:{TOKEN.pattern})$"


class Kind(IntEnum):
    """How a position is accounted for; where it is in several ways, the least counts."""

    STORED = 0
    REPEATED = 1
    PARKED = 2


class Source(NamedTuple):
    """An object that accounts for positions, and how; `code` is that of what is parked."""

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
    """Every account of the positions of one shard.

    `announced` holds, by position, the code under which a manifest says that it is parked; the dead letter may
    still be on its way. `unreadable` are keys of objects that cannot be read as what they should be.
    """

    sources: list[Source] = field(default_factory=list)
    parts: list[Tokens] = field(default_factory=list)
    announced: dict[str, str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    def add(self, source: Source, tokens: Tokens) -> None:
        """Positions (tokens) that an object accounts for."""
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
    s3: Any, bucket: str, origin: Origin, files: Files, strays: Strays, oldest: str | None, threads: Executor
) -> Accounts:
    """Read the objects that account for one shard's positions; manifests only those from `oldest` (a token) on.

    `strays` are accounts found elsewhere. Raises what boto3 raises; an object that is gone by now accounts for
    nothing.
    """
    found = Accounts()
    for source, tokens in strays:
        found.add(source, tokens)
    reading = partial(_try, partial(stored, s3, bucket, origin))
    for key, table in zip(files.events, threads.map(reading, files.events), strict=True):
        if table is None:
            found.unreadable.append(key)
        else:
            found.add(Source(key, Kind.STORED), tokens_of(table))
    _add_manifests(found, s3, bucket, _from(files.manifests, oldest), threads)
    _add_parked(found, s3, bucket, files.failures, threads)
    return found


def stray(
    s3: Any, bucket: str, origin: Origin, keys: Sequence[str]
) -> tuple[dict[str, list[tuple[Source, Tokens]]], list[str]]:
    """What event files account for whose names do not tell the shard, by shard; and the unreadable ones."""
    found: dict[str, list[tuple[Source, Tokens]]] = {}
    unreadable = []
    compute: Any = pc
    for key in keys:
        table = _try(partial(stored, s3, bucket, origin), key)
        if table is None:
            unreadable.append(key)
            continue
        shards: list[Any] = table["shard"].unique().to_pylist()
        for shard in shards:
            part = table.filter(compute.equal(table["shard"], shard))
            found.setdefault(shard, []).append((Source(key, Kind.STORED), tokens_of(part)))
    return found, unreadable


def stored(s3: Any, bucket: str, origin: Origin, key: str) -> pa.Table:
    """The columns shard, sequence and sub of an event file; no rows where another consumer or stream wrote it.

    Raises ValueError or KeyError when it is no such file.
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
    check(tokens_of(table))
    if table["shard"].null_count or not pa.types.is_string(table["shard"].type):
        raise ValueError("no names of shards")
    return table


def tokens_of(table: pa.Table) -> Tokens:
    """The position of each row of a table of `stored`, as tokens."""
    compute: Any = pc
    subs = table["sub"].cast(pa.string())
    joined = compute.binary_join_element_wise(table["sequence"].cast(pa.string()), subs, ".")
    chosen = compute.if_else(compute.equal(subs, "0"), table["sequence"].cast(pa.string()), joined)
    return chosen.combine_chunks() if isinstance(chosen, pa.ChunkedArray) else chosen


def _add_manifests(found: Accounts, s3: Any, bucket: str, keys: Sequence[str], threads: Executor) -> None:
    reading = partial(_try, partial(_decoded, s3, bucket))
    for key, manifest in zip(keys, threads.map(reading, keys), strict=True):
        if manifest is None:
            found.unreadable.append(key)
            continue
        found.add(Source(key, Kind.REPEATED), pa.array(manifest.repeated, pa.string()))
        found.announced.update({at: code for code, parked in manifest.parked.items() for at in parked})


def _add_parked(
    found: Accounts, s3: Any, bucket: str, failures: Sequence[tuple[str, str]], threads: Executor
) -> None:
    """Most codes are in the manifests, which spares reading the failure's object."""
    unknown = [key for key, at in failures if at not in found.announced]
    codes = dict(zip(unknown, threads.map(partial(_code, s3, bucket), unknown), strict=True))
    for key, at in failures:
        code = found.announced.get(at) or codes[key]
        found.add(Source(key, Kind.PARKED, code), pa.array([at], pa.string()))


def _decoded(s3: Any, bucket: str, key: str) -> Manifest:
    body = get(s3, bucket, key)
    return Manifest([], {}) if body is None else manifest_of(body)


def manifest_of(body: bytes) -> Manifest:
    """The manifest in an object's body. Raises ValueError where there is none, or it names no positions."""
    manifest = decoded(body, Manifest)
    check(pa.array([*manifest.repeated, *chain.from_iterable(manifest.parked.values())], pa.string()))
    return manifest


def check(tokens: Tokens) -> None:
    """Raise ValueError where one of them is not a position."""
    compute: Any = pc
    if not compute.all(compute.match_substring_regex(tokens, _TOKEN), min_count=0, skip_nulls=False).as_py():
        raise ValueError("not positions")


def _code(s3: Any, bucket: str, key: str) -> str:
    body = get(s3, bucket, key)
    failure = _try(load, body) if body is not None else None
    return failure.code if failure is not None else NO_CODE


def _try(read: Callable[[Any], T], what: Any) -> T | None:
    try:
        return read(what)
    except (ValueError, KeyError, TypeError, OSError, NotImplementedError, RecursionError, MemoryError):
        # What Arrow and msgspec raise for bytes that are not what they should be.
        return None


def _from(manifests: Sequence[str], oldest: str | None) -> list[str]:
    """The manifests of a shard, in order, from the one in which `oldest` may be on; none without an oldest."""
    if oldest is None:
        return []
    bound = position_from_token("", oldest).order
    found: Mapping[str, tuple[int, int] | None] = {key: _order(key) for key in manifests}
    ordered = sorted((order, key) for key, order in found.items() if order is not None)
    before = sum(order <= bound for order, _ in ordered)
    return [key for _, key in ordered[max(0, before - 1) :]]


def newest(manifests: Sequence[str]) -> str | None:
    """The manifest of the last segment of a shard."""
    return max(
        ((order, key) for key in manifests if (order := _order(key)) is not None), default=(None, None)
    )[1]


def order_of(text: str) -> tuple[int, int]:
    """What positions are sorted by. Raises ValueError where a token is not one."""
    return position_from_token("", text).order


def _order(key: str) -> tuple[int, int] | None:
    try:
        return order_of(key.rpartition("/")[2].removesuffix(".json"))
    except ValueError:
        return None
