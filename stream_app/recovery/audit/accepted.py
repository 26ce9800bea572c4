"""Reads the positions of the records that a stream holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa

from stream_app.model.record import IntVector, Mask, Position
from stream_app.model.segment import token
from stream_app.recovery.stream.kpl import MAGIC, aggregate, delivered
from stream_app.recovery.stream.read import Page, Shard, pages
from stream_app.recovery.stream.runs import arrival

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient

Progress = Callable[[str, int], None]
Tokens: TypeAlias = pa.Array  # position tokens, as strings


@dataclass(frozen=True, slots=True)
class Accepted:
    """The positions of one shard in order, as tokens; about 70 bytes each.

    `misrouted[i]` tells that KCL delivers position i to no consumer (see `kpl.delivered`), `unread[i]` that KCL
    does not deliver it because its record is in an aggregate at or after a record whose keys KCL cannot read
    (`kpl.Aggregate`). `arrived` is in milliseconds since the epoch. Either is None where it is not known. `oldest`
    is the arrival of the first record, UTC.
    """

    shard: str
    tokens: Tokens
    misrouted: Mask
    oldest: datetime | None
    arrived: IntVector | None = None
    unread: Mask | None = None

    @classmethod
    def nothing(cls, shard: str) -> Accepted:
        """Return the positions of a shard that the stream no longer lists: none."""
        return cls(shard, pa.array([], pa.string()), np.zeros(0, dtype=np.bool_), None)


def accepted(kinesis: KinesisClient, stream: str, shard: Shard, progress: Progress | None = None) -> Accepted:
    """Read a shard from TRIM_HORIZON to its end or its tip.

    Calls `progress` with the shard and the number of positions so far after every page. Raises what boto3 raises.
    """
    parts: list[Tokens] = []
    pages_read: list[_Positions] = []
    oldest: datetime | None = None
    count = 0
    for page in pages(kinesis, stream, shard.id):
        if oldest is None and page.records:
            oldest = page.records[0]["ApproximateArrivalTimestamp"].astimezone(UTC)
        tokens, found = _positions(page, shard)
        parts.append(pa.array(tokens, pa.string()))
        pages_read.append(found)
        count += len(tokens)
        if progress is not None:
            progress(shard.id, count)
    everything = pa.concat_arrays(parts) if parts else pa.array([], pa.string())
    none = np.zeros(0, dtype=np.bool_)
    return Accepted(
        shard.id,
        everything,
        np.concatenate([*(one.misrouted for one in pages_read), none]),
        oldest,
        np.concatenate([*(one.arrived for one in pages_read), np.zeros(0, dtype=np.int64)]),
        np.concatenate([*(one.unread for one in pages_read), none]),
    )


class _Positions(NamedTuple):
    """Properties of the positions of a page, beside their tokens."""

    misrouted: Mask
    unread: Mask
    arrived: IntVector


def _positions(page: Page, shard: Shard) -> tuple[list[str], _Positions]:
    tokens: list[str] = []
    arrived: list[int] = []
    misrouted: list[int] = []
    unread: list[int] = []
    for record in page.records:
        start, data = len(tokens), record["Data"]
        packed = aggregate(data) if data.startswith(MAGIC) else None
        if packed is None:
            tokens.append(record["SequenceNumber"])
        else:
            places = range(len(packed))
            tokens += [token(Position(shard.id, record["SequenceNumber"], sub)) for sub in places]
            # KCL discards a misrouted aggregate as a whole, before it reaches a record that it cannot read.
            if not delivered(packed.records, shard.first_hash, shard.last_hash):
                misrouted += range(start, len(tokens))
            else:
                unread += range(start + len(packed.records), len(tokens))
        arrived += [arrival(record)] * (len(tokens) - start)
    flags = np.zeros((2, len(tokens)), dtype=np.bool_)
    flags[0, misrouted] = flags[1, unread] = True
    return tokens, _Positions(flags[0], flags[1], np.array(arrived, dtype=np.int64))
