"""The audit: progress while it runs, and its result as a table."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from stream_app.cli.views.names import short_shard
from stream_app.recovery.audit import checkpoints
from stream_app.recovery.audit.proof import Audit, ShardAudit, Tally, audit
from stream_app.recovery.audit.waiting import OverdueCheck
from stream_app.settings import Settings

if TYPE_CHECKING:
    from stream_app.aws.clients import ClientFactory

_ALWAYS = ("accepted", "stored", "repeated", "parked", "missing", "duplicated")
_IF_NOT_ZERO = ("pending", "overdue", "dropped", "unknown", "trimmed")


def run_audit(
    settings: Settings,
    client: ClientFactory,
    console: Console,
    pending_for: timedelta | None = None,
) -> Audit:
    """Audit the application of the settings, with progress on the console.

    Records that have been pending for longer than `pending_for` make the audit fail.
    """
    committed_now = partial(checkpoints.read, client("dynamodb"), settings.application)
    committed = committed_now()
    columns = (SpinnerColumn(), TextColumn("{task.description} {task.completed:,.0f} positions"))
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(shard: str, positions: int) -> None:
            if shard not in tasks:
                tasks[shard] = bars.add_task(shard, total=None)
            bars.update(tasks[shard], completed=positions)

        return audit(
            kinesis=client("kinesis"),
            s3=client("s3"),
            stream=settings.stream,
            bucket=settings.bucket,
            consumer=settings.application,
            checkpoints=committed,
            progress=progress,
            overdue=None
            if pending_for is None
            else OverdueCheck(pending_for, checkpoints_after=committed_now),
        )


def show(found: Audit, limit: int) -> RenderableType:
    """Render a table by shard, the parked records by code, and up to `limit` positions of each kind of error."""
    parts: list[RenderableType] = [_table(found)]
    parked = ", ".join(f"{code} {count:,}" for code, count in found.total.parked.items())
    parts.append(Text(f"parked: {parked or 'none'}"))
    for shard in found.shards:
        parts += _errors(shard, limit)
    parts += _dropped(found.total)
    parts += [Text(f"cannot read {key}", style="red") for key in found.unreadable[:limit]]
    balanced = Text("balanced: every accepted record is accounted for exactly once", style="bold green")
    parts.append(balanced if found.balanced else Text("NOT balanced", style="bold red"))
    return Group(*parts)


def _table(found: Audit) -> Table:
    table = Table(title=f"{found.consumer} on {found.stream}", title_justify="left", show_footer=True)
    table.add_column("shard", footer="all")
    columns = [*_ALWAYS, *(name for name in _IF_NOT_ZERO if getattr(found.total, name))]
    for name in columns:
        table.add_column(name, justify="right", footer=f"{_count(found.total, name):,}")
    for shard in found.shards:
        table.add_row(short_shard(shard.shard), *(f"{_count(shard.count, name):,}" for name in columns))
    return table


def _count(tally: Tally, name: str) -> int:
    return sum(tally.parked.values()) if name == "parked" else int(getattr(tally, name))


def _errors(shard: ShardAudit, limit: int) -> list[RenderableType]:
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
    """Explain why KCL does not deliver some records to any consumer."""
    lines: list[RenderableType] = []
    if total.dropped:
        why = "KPL aggregates contain a user record with an unreadable hash key or index at or before them"
        lines.append(Text(f"{total.dropped:,} records are dropped by KCL: {why}", style="red"))
    if total.misrouted:
        why = "the hash key of their KPL aggregate is outside the hash key range of the shard"
        lines.append(Text(f"{total.misrouted:,} of the missing are dropped by KCL: {why}", style="red"))
    return lines
