"""Lists of entries with short columns and long notes.

In a narrow terminal a table would squeeze its columns; here the notes wrap below each entry instead.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from rich.text import Text

_GAP = "  "


class Line(NamedTuple):
    """The cells of one entry, one per column, and the notes below them, one per line."""

    cells: Sequence[Text | str]
    notes: Sequence[Text | str] = ()


def aligned(names: Sequence[str], lines: Sequence[Line], right: Collection[str] = ()) -> Text:
    """Align the cells of all lines under the headings `names`; notes are indented to the second column.

    Columns in `right` are aligned to the right.
    """
    cells = [[_text(cell) for cell in line.cells] for line in lines]
    headings = [Text(name, style="bold") for name in names]
    widths = [max(cell.cell_len for cell in column) for column in zip(headings, *cells, strict=True)]
    align_right = [name in right for name in names]
    shown = [_joined(headings, widths, align_right)]
    for line, line_cells in zip(lines, cells, strict=True):
        shown.append(_joined(line_cells, widths, align_right))
        shown += [Text(" " * (widths[0] + len(_GAP))) + _text(note) for note in line.notes]
    return Text("\n").join(shown)


def _text(cell: Text | str) -> Text:
    return cell if isinstance(cell, Text) else Text(cell)


def _joined(cells: Sequence[Text], widths: Sequence[int], align_right: Sequence[bool]) -> Text:
    padded = []
    for cell, width, right in zip(cells, widths, align_right, strict=True):
        space = Text(" " * (width - cell.cell_len))
        padded.append(space + cell if right else cell + space)
    return Text(_GAP).join(padded)
