"""Names of stored columns, which hold an event's fields beside the record's metadata."""

from __future__ import annotations

from collections.abc import Collection, Iterable

RECORD_COLUMNS = ("shard", "sequence", "sub", "partition_key", "arrived")


def stored_name(name: str, event: str) -> str:
    """Return the name of the column that stores a field, prefixed if a metadata column has the field's name."""
    return f"{event}_{name}" if name in RECORD_COLUMNS else name


def field_name(column: str, event: str, fields: Collection[str] = ()) -> str:
    """Return the field that a column stores: the inverse of `stored_name`. `fields` are the event's field names."""
    bare = column.removeprefix(f"{event}_")
    return bare if bare in RECORD_COLUMNS and bare != column and column not in fields else column


def colliding_names(names: Iterable[str], event: str) -> list[str]:
    """Return the names, sorted, that would be stored in the column of another name."""
    known = set(names)
    return sorted(name for name in known if stored_name(name, event) in known - {name})
