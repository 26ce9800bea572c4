"""Records of a few short columns and long notes: where a table would squeeze its columns, lines wrap."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from rich.text import Text

_GAP = "  "


class Line(NamedTuple):
    """Cells, one a column, and what stands below them, each on a line of its own."""

    cells: Sequence[Text | str]
    notes: Sequence[Text | str] = ()


def aligned(names: Sequence[str], lines: Sequence[Line], right: Collection[str] = ()) -> Text:
    """A heading, the cells of all lines under it in columns, and the notes indented to the second column."""
    cells = [[_text(cell) for cell in line.cells] for line in lines]
    heads = [Text(name, style="bold") for name in names]
    widths = [max(cell.cell_len for cell in column) for column in zip(heads, *cells, strict=True)]
    flush = [name in right for name in names]
    shown = [_joined(heads, widths, flush)]
    for line, own in zip(lines, cells, strict=True):
        shown.append(_joined(own, widths, flush))
        shown += [Text(" " * (widths[0] + len(_GAP))) + _text(note) for note in line.notes]
    return Text("\n").join(shown)


def _text(cell: Text | str) -> Text:
    return cell if isinstance(cell, Text) else Text(cell)


def _joined(cells: Sequence[Text], widths: Sequence[int], flush: Sequence[bool]) -> Text:
    padded = []
    for cell, width, to_the_right in zip(cells, widths, flush, strict=True):
        space = Text(" " * (width - cell.cell_len))
        padded.append(space + cell if to_the_right else cell + space)
    return Text(_GAP).join(padded)
