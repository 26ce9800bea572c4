"""Records as KCL delivers them."""

from __future__ import annotations

from stream_app.model.record import Record

FIRST_SEQUENCE = 49_600_000_000_000_000_000_000_000_000_000_000_000_000_000_000_000_000_000


def record(
    data: bytes, at: int = 0, *, key: str = "device", arrived: int = 1_700_000_000_000, sub: int = 0
) -> Record:
    """Create a record; `at` is its number within the shard, `arrived` is in milliseconds since the epoch."""
    return Record(data, key, str(FIRST_SEQUENCE + at), arrived, sub)
