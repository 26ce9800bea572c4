"""Failures as tables: lists, counts, and dead letters with their state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from rich.console import Console, Group, RenderableType
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from stream_app.cli.views.lines import Line, aligned
from stream_app.model.segment import utc_datetime
from stream_app.recovery.find.payload import printable_text
from stream_app.recovery.find.stats import Cause, Stats, count_table, timestamp_text
from stream_app.recovery.hydrate.results import DeadLetterRecord, State
from stream_app.recovery.hydrate.trial import Outcome
from stream_app.recovery.store import DISCARDED, EXPIRED, OPEN, PROCESSED, REDRIVEN

_STYLES = {OPEN: "yellow", REDRIVEN: "cyan", PROCESSED: "green", DISCARDED: "dim", EXPIRED: "red"}
_STATES = {
    State.WAITING: "yellow",
    State.EXPIRED: "bold red",
    State.PARTIAL: "red",
    State.HYDRATED: "green",
}
_MAX_CAUSES = 40
_EXPIRES_SOON = 86_400  # seconds
_DAY = timedelta(days=1)

T = TypeVar("T")


class Counting(Protocol):
    """Passes the items of an iterable through, counting them."""

    def __call__(self, items: Iterable[T], /) -> Iterator[T]:
        """Yield each item."""
        ...


@contextmanager
def counting(console: Console) -> Iterator[Counting]:
    """Yield a function that passes items through and shows their number on the console."""
    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} failures read"))
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("read", total=None)

        def counted(items: Iterable[T], /) -> Iterator[T]:
            for item in items:
                bars.advance(task)
                yield item

        yield counted


# `row` of the module recovery.failure_details gives JSON documents, whose values are strings, numbers or None.
def listing(rows: Sequence[Mapping[str, Any]], *, more: bool) -> RenderableType:
    """Render one line per failure, with its reason below."""
    if not rows:
        return Text("no failures match")
    lines = [
        Line(
            [
                row["id"],
                str(row["arrived"])[:19].replace("T", " "),
                status(row["status"]),
                row["code"],
                safe_text(row["partition_key"]),
            ],
            [safe_text(f"{row['event']}: {row['reason']}" if row["event"] else row["reason"])],
        )
        for row in rows
    ]
    count_table = aligned(("id", "arrived (UTC)", "status", "code", "device"), lines)
    hint = "there are more: raise --limit or add filters; failures stats counts all of them" if more else ""
    return Group(count_table, Text(hint, style="dim")) if hint else count_table


def counts(found: Stats) -> RenderableType:
    """Render the counts by time and code, and one line per cause."""
    if not found.count:
        return Text("no failures match")
    statuses = ", ".join(f"{name} {count:,}" for name, count in sorted(found.statuses.items()))
    causes = found.ranked()
    parts: list[RenderableType] = [_by_time(found), Text(""), _causes(causes[:_MAX_CAUSES])]
    if len(causes) > _MAX_CAUSES:
        parts.append(Text(f"{len(causes) - _MAX_CAUSES:,} rarer causes: --json lists all", style="dim"))
    return Group(*parts, Text(f"{found.count:,} failures: {statuses}"))


def _by_time(found: Stats) -> Table:
    step, rows = count_table(found.by_time)
    title = f"Failures by code, one row per {_length(step)}"
    grid = Table(title=title, title_justify="left", show_footer=True, box=None, padding=(0, 1, 0, 0))
    grid.add_column("from (UTC)", footer="all", no_wrap=True)
    for code in found.codes:
        total = sum(row[code] for row in rows.values())
        grid.add_column(
            Text(printable_text(code).replace("_", "\n")),
            justify="right",
            footer=f"{total:,}",
            overflow="fold",
        )
    grid.add_column("all", justify="right", footer=f"{found.count:,}", no_wrap=True)
    for at, row in rows.items():
        day = timestamp_text(at)[:10]
        cells = (f"{row[code]:,}" if row[code] else "" for code in found.codes)
        grid.add_row(
            day if step >= _DAY else f"{day[5:]} {timestamp_text(at)[11:16]}",
            *cells,
            f"{sum(row.values()):,}",
        )
    return grid


def _causes(causes: Sequence[Cause]) -> RenderableType:
    lines = [
        Line(
            [
                cause.fingerprint,
                f"{cause.count:,}",
                f"{cause.devices:,}",
                cause.code,
                timestamp_text(cause.last)[:19].replace("T", " "),
            ],
            [safe_text(f"{cause.event}: {cause.reason}" if cause.event else cause.reason)],
        )
        for cause in causes
    ]
    names = ("fingerprint", "failures", "devices", "code", "last (UTC)")
    return Group(Text("Causes", style="italic"), aligned(names, lines, right=("failures", "devices")))


def waiting_line(count: str, first: DeadLetterRecord, now: datetime) -> RenderableType:
    """Render the number of dead letters that wait for hydration, and when the first payload expires."""
    wait = f"{count} dead letter waits" if count == "1" else f"{count} dead letters wait"
    begin = Text.assemble((f"{wait} for hydration", "bold yellow"), "; the first payload ")
    return begin + _expiry(first, now) + Text(" (list them with --waiting)", style="dim")


def queued_line(count: int) -> RenderableType:
    """Render the number of dead letters in the queue, which the list does not contain yet."""
    subject = "dead letter is" if count == 1 else "dead letters are"
    return Text(f"{count:,} {subject} in the dead-letter queue and not in this list yet", style="yellow")


def dead_letters(found: Sequence[DeadLetterRecord], now: datetime, *, waiting: bool) -> RenderableType:
    """Render dead letters with their state; with `waiting`, also when their payload expires."""
    if not found:
        none = "no dead letters wait for hydration" if waiting else "no dead letters of pipes or functions"
        return Text(none)
    title = "Dead letters that wait, by expiry" if waiting else "Dead letters of ranges, newest hour first"
    grid = Table(title=title, title_justify="left")
    for name in ("arrived", "from", "state", "records", "position"):
        grid.add_column(name, overflow="fold", no_wrap=name == "state")
    for one in found:
        position = f"{one.shard}/{one.first}" + (f" to {one.last}" if one.last != one.first else "")
        arrived = timestamp_text(utc_datetime(one.arrived))[:19]
        grid.add_row(arrived, one.source, _state(one, now), _records(one), position)
    return grid


def _state(dead_letter: DeadLetterRecord, now: datetime) -> Text:
    name = Text(dead_letter.state.value, style=_STATES[dead_letter.state])
    if dead_letter.state == State.WAITING:
        name += Text("\n") + _expiry(dead_letter, now)
    return name + (Text("\n") + safe_text(dead_letter.reason) if dead_letter.reason else Text(""))


def _records(dead_letter: DeadLetterRecord) -> str:
    if dead_letter.state == State.WAITING:
        return f"{dead_letter.size:,}"
    return f"{dead_letter.found:,} of {dead_letter.size:,} found\n{outcomes(dead_letter)}"


def outcomes(dead_letter: DeadLetterRecord) -> str:
    """Return how many records of a range failed and how many did not, as text."""
    failed, passed = dead_letter.count(Outcome.FAILED), dead_letter.count(Outcome.PASSED)
    return f"{failed:,} failed, {passed:,} without failure"


def _expiry(dead_letter: DeadLetterRecord, now: datetime) -> Text:
    if dead_letter.deadline is None:
        return Text("expires at an unknown time")
    left = (utc_datetime(dead_letter.deadline) - now).total_seconds()
    at = timestamp_text(utc_datetime(dead_letter.deadline))
    if left <= 0:
        return Text(f"expired at {at}", style="bold red")
    style = "red" if left < _EXPIRES_SOON else ""
    return Text(f"expires at {at}, in {_length(timedelta(seconds=left))}", style=style)


def status(name: str | None) -> Text:
    """Return a status in its colour."""
    return Text(name or "unknown", style=_STYLES.get(name or "", ""))


def safe_text(text: str) -> Text:
    """Return untrusted text without markup and without control sequences of the terminal."""
    return Text(printable_text(text))


def _length(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    for name, size in (("week", 604_800), ("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= size:
            count = seconds // size
            return f"{count} {name}{'s' if count > 1 else ''}"
    return f"{seconds} seconds"
