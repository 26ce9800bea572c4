"""Short forms of long names, for tables."""

from __future__ import annotations

_PREFIX = "shardId-"


def short_shard(shard: str) -> str:
    """Shorten `shardId-000000000003` to `3`; any other name is returned unchanged."""
    digits = shard.removeprefix(_PREFIX)
    number = digits.isascii() and digits.isdigit()
    return digits.lstrip("0") or "0" if shard.startswith(_PREFIX) and number else shard
