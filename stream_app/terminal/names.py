"""Long names, shortened for tables."""

from __future__ import annotations

_PREFIX = "shardId-"


def short_shard(shard: str) -> str:
    """`shardId-000000000003` as `3`; any other name as it is."""
    digits = shard.removeprefix(_PREFIX)
    return str(int(digits)) if shard.startswith(_PREFIX) and digits.isdigit() else shard
