"""Corrections as tables: a list, the history of one position, and the result of reapplying."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from stream_app.cli.views.failures import safe_text
from stream_app.cli.views.lines import Line, aligned
from stream_app.model.segment import utc_datetime
from stream_app.recovery.correct.history_entry import Entry, position_name
from stream_app.recovery.correct.reapply import Reapplied

_MAX_SHOWN = 20


def listing(entries: Sequence[Entry], queued: int | None) -> RenderableType:
    """Render one line per position with its details below.

    `queued` is the number of messages in the manual-review queue, None if there is no such queue.
    """
    lines = [
        Line(
            [entry.status, safe_text(entry.request.key), entry.request.event, _stamp(entry.at)],
            [position_name(entry.request), safe_text(f"{entry.request.by}: {_summary(entry)}")],
        )
        for entry in entries
    ]
    names = ("status", "device", "event", "requested at")
    table: RenderableType = aligned(names, lines) if lines else "no corrections were requested"
    waiting = "" if queued is None else f"\n{queued} messages in the manual-review queue"
    return Group(table, f"{len(entries)} listed{waiting}")


def history(entry: Entry) -> RenderableType:
    """Render all fields of the history of one position."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in _rows(entry):
        table.add_row(name, escape(value))
    return table


def _rows(entry: Entry) -> Iterator[tuple[str, str]]:
    request, done, refusal = entry.request, entry.done, entry.refusal
    yield "position", position_name(request)
    yield "event", request.event
    yield "device", request.key
    yield "status", entry.status
    yield "requested by", f"{request.by} at {_stamp(entry.at)}"
    if done is not None:
        yield "corrected", "" if entry.done_at is None else _stamp(entry.done_at)
        yield "object", done.key
        yield "version", f"{done.version or 'unknown'}, before {done.version_before or 'unknown'}"
        yield "before", _json(done.before)
        yield "after", _json(done.after)
        if done.rebuilt:
            yield "rebuilt from", "the stored columns: the payload had left the stream"
        yield "latest value", "corrected too" if done.latest else "of another row"
        if done.affects_until is not None:
            more = f" and {len(done.affected) - _MAX_SHOWN} more" if len(done.affected) > _MAX_SHOWN else ""
            yield "not recalculated", ", ".join(done.affected[:_MAX_SHOWN]) + more
            yield "and rows until", done.affects_until
    if refusal is not None:
        yield (
            "manual review",
            f"{refusal.reason} (requested by {refusal.request.by} at {_stamp(refusal.at)})",
        )
        if refusal.stored is not None:
            yield "stored", refusal.stored


def reapplied(done: Reapplied) -> RenderableType:
    """Render how many corrections were reapplied, and the reasons for those that were not."""
    lines = [f"reapplied {done.applied:,}; {done.there:,} were present already"]
    if done.early:
        lines.append(f"{done.early:,} are after the checkpoint: run the command again later")
    lines += [f"{position}: {reason}" for position, reason in done.impossible[:_MAX_SHOWN]]
    if len(done.impossible) > _MAX_SHOWN:
        lines.append(f"and {len(done.impossible) - _MAX_SHOWN:,} more: --json lists all")
    return escape("\n".join(lines))


def _summary(entry: Entry) -> str:
    if entry.refusal is not None:
        return entry.refusal.reason
    return "" if entry.done is None else ", ".join(sorted(entry.done.after))


def _json(values: Mapping[str, object]) -> str:
    return msgspec.json.encode(values).decode()


def _stamp(milliseconds: int) -> str:
    return utc_datetime(milliseconds).isoformat(timespec="seconds").replace("+00:00", "Z")
