"""Names the columns in which a stored and a recalculated row differ, for refusal reasons."""

from __future__ import annotations

import pyarrow as pa

from stream_app.recovery.correct.rewriting.segment import holds_values

_MAX_COLUMNS = 5


def differing_columns(row: pa.Table, wanted: pa.Table) -> list[str]:
    """Return the columns of `wanted` that differ in the stored row or that it lacks.

    Values are compared bit by bit.
    """
    return [name for name in wanted.column_names if not holds_values(row, wanted.select([name]))]


def column_list(columns: list[str]) -> str:
    """Return a text that lists the columns, or the first few of them and the number of the others."""
    more = len(columns) - _MAX_COLUMNS
    listed = ", ".join(columns[:_MAX_COLUMNS])
    return f"{listed} and {more} more" if more > 0 else listed
