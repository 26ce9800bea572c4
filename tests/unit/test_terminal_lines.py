"""Columns are aligned, notes are printed below them, and nothing is truncated."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream_app.cli.views.lines import Line, aligned

WORDS = st.text(alphabet="abc_µ/", max_size=12)
ROWS = st.lists(st.tuples(WORDS, WORDS, WORDS, st.lists(WORDS, max_size=2)), max_size=5)


@given(ROWS, st.sets(st.sampled_from(["one", "two", "three"])))
def test_cells_are_aligned_with_notes_below(
    rows: list[tuple[str, str, str, list[str]]], right: set[str]
) -> None:
    names = ("one", "two", "three")
    shown = aligned(names, [Line(row[:3], row[3]) for row in rows], right).plain.split("\n")
    widths = [max(map(len, column)) for column in zip(names, *(row[:3] for row in rows), strict=True)]
    wanted = []
    for row in [(*names, list[str]()), *rows]:
        cells = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(names, row[:3], widths, strict=True)
        ]
        wanted.append("  ".join(cells))
        wanted += [" " * (widths[0] + 2) + note for note in row[3]]
    assert shown == wanted
