"""Long names, shortened for tables."""

from __future__ import annotations

_PREFIX = "shardId-"


def short_shard(shard: str) -> str:
    """`shardId-000000000003` as `3`; any other name as it is."""
    digits = shard.removeprefix(_PREFIX)
    number = digits.isascii() and digits.isdigit()
    return digits.lstrip("0") or "0" if shard.startswith(_PREFIX) and number else shard
