"""Corrections, as people see them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from stream_app.cli.views.failures import said
from stream_app.cli.views.lines import Line, aligned
from stream_app.model.segment import instant
from stream_app.recovery.correct.history import Entry, name_of
from stream_app.recovery.correct.reapply import Reapplied

_NAMED = 20


def listing(entries: Sequence[Entry], letters: int | None) -> RenderableType:
    """A line for each position, and below it where it is and what of it; `letters` wait in the manual queue, None
    where there is no such queue."""
    shown = [
        Line(
            [entry.status, said(entry.request.key), entry.request.event, _stamp(entry.at)],
            [name_of(entry.request), said(f"{entry.request.by}: {_what(entry)}")],
        )
        for entry in entries
    ]
    names = ("status", "device", "event", "asked for at")
    table: RenderableType = aligned(names, shown) if shown else "nothing was asked for"
    waiting = "" if letters is None else f"\n{letters} letters wait in the manual queue"
    return Group(table, f"{len(entries)} listed{waiting}")


def story(entry: Entry) -> RenderableType:
    """Everything that the history knows of one position."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in _told(entry):
        table.add_row(name, escape(value))
    return table


def _told(entry: Entry) -> Iterator[tuple[str, str]]:
    request, done, refusal = entry.request, entry.done, entry.refusal
    yield "position", name_of(request)
    yield "event", request.event
    yield "device", request.key
    yield "status", entry.status
    yield "asked by", f"{request.by} at {_stamp(entry.at)}"
    if done is not None:
        yield "corrected", "" if entry.done_at is None else _stamp(entry.done_at)
        yield "object", done.key
        yield "version", f"{done.version or 'not known'}, before {done.version_before or 'not known'}"
        yield "before", _json(done.before)
        yield "after", _json(done.after)
        if done.rebuilt:
            yield "made from", "its stored columns: the payload had left the stream"
        yield "latest value", "corrected too" if done.latest else "not of it"
        if done.affects_until is not None:
            more = f" and {len(done.affected) - _NAMED} more" if len(done.affected) > _NAMED else ""
            yield "left as they were", ", ".join(done.affected[:_NAMED]) + more
            yield "and those until", done.affects_until
    if refusal is not None:
        yield "for people", f"{refusal.reason} (asked by {refusal.request.by} at {_stamp(refusal.at)})"
        if refusal.stored is not None:
            yield "stored", refusal.stored


def reapplied(done: Reapplied) -> RenderableType:
    """How many were put back, and which could not be."""
    lines = [f"put back {done.applied:,}, {done.there:,} were there"]
    if done.early:
        lines.append(f"{done.early:,} are not behind the checkpoint yet: run it again then")
    lines += [f"{place}: {why}" for place, why in done.impossible[:_NAMED]]
    if len(done.impossible) > _NAMED:
        lines.append(f"and {len(done.impossible) - _NAMED:,} more: --json names them all")
    return escape("\n".join(lines))


def _what(entry: Entry) -> str:
    if entry.refusal is not None:
        return entry.refusal.reason
    return "" if entry.done is None else ", ".join(sorted(entry.done.after))


def _json(values: Mapping[str, Any]) -> str:
    return msgspec.json.encode(values).decode()


def _stamp(milliseconds: int) -> str:
    return instant(milliseconds).isoformat(timespec="seconds").replace("+00:00", "Z")
