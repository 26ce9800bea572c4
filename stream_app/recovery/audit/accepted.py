"""What Kinesis accepted: the positions of the records that a stream holds now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from stream_app.record import Mask, Position
from stream_app.recovery.stream.kpl import MAGIC, delivered, unpack
from stream_app.recovery.stream.read import Page, Shard, pages
from stream_app.sinks.segment import token

Progress = Callable[[str, int], None]
Tokens = Any  # a pyarrow array of strings; the stubs of its functions are narrower than the functions


@dataclass(frozen=True, slots=True)
class Accepted:
    """The positions of one shard, in order, as tokens; about 60 bytes each.

    `misrouted[i]` tells that KCL hands position i to no consumer (see `kpl.delivered`). `oldest` is the arrival
    of the first, UTC.
    """

    shard: str
    tokens: Tokens
    misrouted: Mask
    oldest: datetime | None

    @classmethod
    def nothing(cls, shard: str) -> Accepted:
        """A shard that the stream no longer knows."""
        return cls(shard, pa.array([], pa.string()), np.zeros(0, dtype=np.bool_), None)


def accepted(kinesis: Any, stream: str, shard: Shard, progress: Progress | None = None) -> Accepted:
    """Read a shard from TRIM_HORIZON to its end or its tip.

    `progress` is told the shard and the count of positions so far, after every page. Raises what boto3 raises.
    """
    parts: list[pa.Array[Any]] = []
    flags: list[Mask] = []
    oldest: datetime | None = None
    count = 0
    for page in pages(kinesis, stream, shard.id):
        if oldest is None and page.records:
            oldest = page.records[0]["ApproximateArrivalTimestamp"].astimezone(UTC)
        tokens, misrouted = _positions(page, shard)
        parts.append(pa.array(tokens, pa.string()))
        flags.append(misrouted)
        count += len(tokens)
        if progress is not None:
            progress(shard.id, count)
    everything = pa.concat_arrays(parts) if parts else pa.array([], pa.string())
    return Accepted(shard.id, everything, np.concatenate([*flags, np.zeros(0, dtype=np.bool_)]), oldest)


def _positions(page: Page, shard: Shard) -> tuple[list[str], Mask]:
    tokens: list[str] = []
    dropped: list[int] = []
    for record in page.records:
        packed = unpack(record["Data"]) if record["Data"].startswith(MAGIC) else None
        if packed is None:
            tokens.append(record["SequenceNumber"])
            continue
        start = len(tokens)
        tokens += [token(Position(shard.id, record["SequenceNumber"], sub)) for sub in range(len(packed))]
        if not delivered(packed, shard.first_hash, shard.last_hash):
            dropped += range(start, len(tokens))
    misrouted = np.zeros(len(tokens), dtype=np.bool_)
    misrouted[dropped] = True
    return tokens, misrouted
