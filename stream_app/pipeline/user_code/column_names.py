"""Names of stored columns: an event's fields beside the columns that say where a row comes from."""

from __future__ import annotations

from collections.abc import Collection, Iterable

RECORD_COLUMNS = ("shard", "sequence", "sub", "partition_key", "arrived")


def stored_name(name: str, event: str) -> str:
    """The column that holds an event's field."""
    return f"{event}_{name}" if name in RECORD_COLUMNS else name


def field_name(column: str, event: str, fields: Collection[str] = ()) -> str:
    """The field that a column holds: the inverse of `stored_name`. `fields` are names of the event's fields."""
    bare = column.removeprefix(f"{event}_")
    return bare if bare in RECORD_COLUMNS and bare != column and column not in fields else column


def colliding_names(names: Iterable[str], event: str) -> list[str]:
    """Those of some names that would be stored in a column of another one, sorted."""
    known = set(names)
    return sorted(name for name in known if stored_name(name, event) in known - {name})
