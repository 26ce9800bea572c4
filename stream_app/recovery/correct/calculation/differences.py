"""Which columns of a stored row differ from a recalculated one: for the reason of a refused correction."""

from __future__ import annotations

import pyarrow as pa

from stream_app.recovery.correct.rewriting.segment import same

_MOST = 5


def differing(row: pa.Table, wanted: pa.Table) -> list[str]:
    """Return the columns of `wanted` that a stored row lacks, or holds with other values, to the last bit."""
    return [name for name in wanted.column_names if not same(row, wanted.select([name]))]


def named(columns: list[str]) -> str:
    """Return a text that names the columns, the first few where there are many."""
    more = len(columns) - _MOST
    listed = ", ".join(columns[:_MOST])
    return f"{listed} and {more} more" if more > 0 else listed
