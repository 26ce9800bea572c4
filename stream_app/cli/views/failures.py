"""Failures for people: lists, counts, and what waits to be hydrated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from stream_app.cli.views.lines import Line, aligned
from stream_app.model.segment import instant
from stream_app.recovery.find.payload import printable
from stream_app.recovery.find.stats import Cause, Stats, stamp, table
from stream_app.recovery.hydrate.narrow import Judged
from stream_app.recovery.hydrate.results import LetterRecord, State
from stream_app.recovery.store import DISCARDED, EXPIRED, OPEN, PROCESSED, REDRIVEN

_STYLES = {OPEN: "yellow", REDRIVEN: "cyan", PROCESSED: "green", DISCARDED: "dim", EXPIRED: "red"}
_STATES = {
    State.WAITING: "yellow",
    State.EXPIRED: "bold red",
    State.PARTIAL: "red",
    State.HYDRATED: "green",
}
_MOST_CAUSES = 40
_SOON = 86_400  # seconds
_DAY = timedelta(days=1)


@contextmanager
def reading(console: Console) -> Iterator[Any]:
    """A function that counts what passes through it, and shows the count."""
    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} failures read"))
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task("read", total=None)

        def passing(found: Any) -> Iterator[Any]:
            for one in found:
                shown.advance(task)
                yield one

        yield passing


def listing(rows: Sequence[Mapping[str, Any]], *, more: bool) -> RenderableType:
    """A line for each failure, the latest first, and its reason below."""
    if not rows:
        return Text("no failures in that time, of that kind")
    shown = [
        Line(
            [
                row["id"],
                str(row["arrived"])[:19].replace("T", " "),
                status(row["status"]),
                row["code"],
                said(row["partition_key"]),
            ],
            [said(f"{row['event']}: {row['reason']}" if row["event"] else row["reason"])],
        )
        for row in rows
    ]
    table = aligned(("id", "arrived (UTC)", "status", "code", "device"), shown)
    hint = "there are more: --limit, or narrower; failures stats counts them all" if more else ""
    return Group(table, Text(hint, style="dim")) if hint else table


def counts(found: Stats) -> RenderableType:
    """Time by code, and a line for each cause."""
    if not found.count:
        return Text("no failures in that time, of that kind")
    statuses = ", ".join(f"{name} {count:,}" for name, count in sorted(found.statuses.items()))
    causes = found.ranked()
    parts: list[RenderableType] = [_by_time(found), Text(""), _causes(causes[:_MOST_CAUSES])]
    if len(causes) > _MOST_CAUSES:
        parts.append(Text(f"{len(causes) - _MOST_CAUSES:,} rarer causes: --json names them all", style="dim"))
    return Group(*parts, Text(f"{found.count:,} failures: {statuses}"))


def _by_time(found: Stats) -> Table:
    step, rows = table(found.by_time)
    title = f"Failures by code, a row for each {_length(step)}"
    shown = Table(title=title, title_justify="left", show_footer=True, box=None, padding=(0, 1, 0, 0))
    shown.add_column("from (UTC)", footer="all", no_wrap=True)
    for code in found.codes:
        total = sum(row[code] for row in rows.values())
        shown.add_column(
            Text(printable(code).replace("_", "\n")), justify="right", footer=f"{total:,}", overflow="fold"
        )
    shown.add_column("all", justify="right", footer=f"{found.count:,}", no_wrap=True)
    for at, row in rows.items():
        day = stamp(at)[:10]
        cells = (f"{row[code]:,}" if row[code] else "" for code in found.codes)
        shown.add_row(
            day if step >= _DAY else f"{day[5:]} {stamp(at)[11:16]}", *cells, f"{sum(row.values()):,}"
        )
    return shown


def _causes(causes: Sequence[Cause]) -> RenderableType:
    shown = [
        Line(
            [
                one.fingerprint,
                f"{one.count:,}",
                f"{one.devices:,}",
                one.code,
                stamp(one.last)[:19].replace("T", " "),
            ],
            [said(f"{one.event}: {one.reason}" if one.event else one.reason)],
        )
        for one in causes
    ]
    names = ("fingerprint", "failures", "devices", "code", "last (UTC)")
    return Group(Text("Causes", style="italic"), aligned(names, shown, right=("failures", "devices")))


def waiting_line(count: str, first: LetterRecord, now: datetime) -> RenderableType:
    """What there is to say of dead letters that are not hydrated, and of the first of them to vanish."""
    wait = f"{count} dead letter waits" if count == "1" else f"{count} dead letters wait"
    begin = Text.assemble((f"{wait} to be hydrated", "bold yellow"), "; the first payload ")
    return begin + _vanishes(first, now) + Text(" (--waiting shows them)", style="dim")


def queued_line(count: int) -> RenderableType:
    """That there are failures which are in no list yet."""
    said_so = "dead letter is" if count == 1 else "dead letters are"
    return Text(f"{count:,} {said_so} in the queue, on the way to hydrate: not in this list", style="yellow")


def letters(some: Sequence[LetterRecord], now: datetime, *, waiting: bool) -> RenderableType:
    """Dead letters and what became of them; those that wait with their clock."""
    if not some:
        return Text("no dead letter waits" if waiting else "no dead letters of pipes or functions")
    title = "that wait, the first to vanish first" if waiting else "of ranges, the latest hours first"
    shown = Table(title=f"Dead letters {title}", title_justify="left")
    for name in ("arrived", "from", "state", "records", "position"):
        shown.add_column(name, overflow="fold", no_wrap=name == "state")
    for one in some:
        where = f"{one.shard}/{one.first}" + (f" to {one.last}" if one.last != one.first else "")
        arrived = stamp(instant(one.arrived))[:19]
        shown.add_row(arrived, one.source, _state(one, now), _records(one), where)
    return shown


def _state(letter: LetterRecord, now: datetime) -> Text:
    name = Text(letter.state.value, style=_STATES[letter.state])
    if letter.state == State.WAITING:
        name += Text("\n") + _vanishes(letter, now)
    return name + (Text("\n") + said(letter.reason) if letter.reason else Text(""))


def _records(letter: LetterRecord) -> str:
    if letter.state == State.WAITING:
        return f"{letter.size:,}"
    guilty, innocent = letter.count(Judged.FAILED), letter.count(Judged.INNOCENT)
    return f"{letter.found:,} of {letter.size:,} found\n{guilty:,} failures, {innocent:,} innocent"


def _vanishes(letter: LetterRecord, now: datetime) -> Text:
    if letter.vanishes is None:
        return Text("vanishes nobody knows when")
    left = (instant(letter.vanishes) - now).total_seconds()
    at = stamp(instant(letter.vanishes))
    if left <= 0:
        return Text(f"vanished at {at}", style="bold red")
    return Text(
        f"vanishes at {at}, in {_length(timedelta(seconds=left))}", style="red" if left < _SOON else ""
    )


def status(name: str | None) -> Text:
    """A status in its colour."""
    return Text(name or "unknown", style=_STYLES.get(name or "", ""))


def said(text: str) -> Text:
    """What a sender wrote: neither markup nor anything that steers a terminal."""
    return Text(printable(text))


def _length(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    for name, size in (("week", 604_800), ("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= size:
            count = seconds // size
            return f"{count} {name}{'s' if count > 1 else ''}"
    return f"{seconds} seconds"
