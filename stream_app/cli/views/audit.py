"""An audit, run with progress and shown to people."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from stream_app.cli.views.names import short_shard
from stream_app.recovery.audit import checkpoints
from stream_app.recovery.audit.proof import Audit, ShardAudit, Tally, audit
from stream_app.settings import Settings

_ALWAYS = ("accepted", "stored", "repeated", "parked", "missing", "duplicated")
_WHEN_ANY = ("pending", "overdue", "dropped", "unknown", "trimmed")


def checked(
    settings: Settings,
    client: Callable[[str], Any],
    console: Console,
    pending_for: timedelta | None = None,
) -> Audit:
    """Audit the application of the settings, telling the console how far it has read.

    Records that have been pending for longer than `pending_for` do not balance.
    """
    committed_now = partial(checkpoints.read, client("dynamodb"), settings.application)
    committed = committed_now()
    columns = (SpinnerColumn(), TextColumn("{task.description} {task.completed:,.0f} positions"))
    with Progress(*columns, console=console, transient=True) as shown:
        tasks: dict[str, Any] = {}

        def progress(shard: str, positions: int) -> None:
            if shard not in tasks:
                tasks[shard] = shown.add_task(shard, total=None)
            shown.update(tasks[shard], completed=positions)

        return audit(
            kinesis=client("kinesis"),
            s3=client("s3"),
            stream=settings.stream,
            bucket=settings.bucket,
            consumer=settings.application,
            checkpoints=committed,
            progress=progress,
            pending_for=pending_for,
            checkpoints_after=committed_now,
        )


def show(found: Audit, limit: int) -> RenderableType:
    """A table by shard, parked by code, and at most `limit` positions of each kind that is wrong."""
    parts: list[RenderableType] = [_table(found)]
    parked = ", ".join(f"{code} {count:,}" for code, count in found.total.parked.items())
    parts.append(Text(f"parked: {parked or 'none'}"))
    for shard in found.shards:
        parts += _wrong(shard, limit)
    parts += _dropped(found.total)
    parts += [Text(f"cannot be read: {key}", style="red") for key in found.unreadable[:limit]]
    good = Text("balanced: every accepted record is accounted for exactly once", style="bold green")
    parts.append(good if found.balanced else Text("NOT balanced", style="bold red"))
    return Group(*parts)


def _table(found: Audit) -> Table:
    table = Table(title=f"{found.consumer} on {found.stream}", title_justify="left", show_footer=True)
    table.add_column("shard", footer="all")
    columns = [*_ALWAYS, *(name for name in _WHEN_ANY if getattr(found.total, name))]
    for name in columns:
        table.add_column(name, justify="right", footer=f"{_count(found.total, name):,}")
    for shard in found.shards:
        table.add_row(short_shard(shard.shard), *(f"{_count(shard.count, name):,}" for name in columns))
    return table


def _count(tally: Tally, name: str) -> int:
    return sum(tally.parked.values()) if name == "parked" else int(getattr(tally, name))


def _wrong(shard: ShardAudit, limit: int) -> list[RenderableType]:
    lines: list[RenderableType] = []
    lines += [Text(f"missing: {shard.shard}/{position}", style="red") for position in shard.missing[:limit]]
    lines += [
        Text(f"duplicated: {shard.shard}/{twice.position} in {', '.join(twice.where)}", style="red")
        for twice in shard.duplicated[:limit]
    ]
    lines += [Text(f"unknown: {shard.shard}/{position}", style="red") for position in shard.unknown[:limit]]
    lines += [
        Text(f"dropped by KCL: {shard.shard}/{position}", style="red") for position in shard.dropped[:limit]
    ]
    if shard.waiting is not None:
        lines.append(Text(shard.waiting.message, style="red"))
    return lines


def _dropped(total: Tally) -> list[RenderableType]:
    """Why KCL hands records on to no consumer."""
    lines: list[RenderableType] = []
    if total.dropped:
        why = "they lie in KPL aggregates at or behind a record whose hash key or index it cannot read"
        lines.append(Text(f"{total.dropped:,} records are dropped by KCL: {why}", style="red"))
    if total.misrouted:
        why = "they lie in KPL aggregates with a hash key outside the shard's range"
        lines.append(Text(f"{total.misrouted:,} of the missing are dropped by KCL: {why}", style="red"))
    return lines
