"""The summary of a run as tables."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stream_app.cli.views.names import short_shard
from stream_app.cli.views.sent import format_rows
from stream_app.local.run.report import Report


def render(report: Report) -> RenderableType:
    """Render the counts by shard, the key figures, the highest anomaly scores and the conclusion."""
    parts: list[RenderableType] = [_shards(report), _figures(report)]
    parts += [_strangest(report)] if report.strangest else []
    parts += [_conclusion(report)]
    parts += [Text(problem, style="red") for problem in (*report.problems, *filter(None, [report.error]))]
    parts += [
        Text(f"{rows['count']:,} not sent, {why}: {format_rows(rows['rows'], rows['count'])}", style="red")
        for why, rows in report.unsendable.items()
    ]
    return Group(*parts)


def _conclusion(report: Report) -> Text:
    if report.interrupted:
        text = f"interrupted: {report.pending:,} accepted records were not stored yet"
        return Text(text, style="bold yellow")
    if report.balanced:
        return Text("balanced: every accepted record is accounted for exactly once", style="bold green")
    return Text("NOT balanced", style="bold red")


def _shards(report: Report) -> Table:
    table = Table(title="Accounted for, by shard", title_justify="left", show_footer=True)
    columns = ("accepted", "stored", "repeated", "parked", "missing", "duplicated")
    totals = (report.accepted, report.stored, report.repeated, sum(report.parked.values()))
    table.add_column("shard", footer="all")
    for name, total in zip(columns, (*totals, report.missing, report.duplicated), strict=True):
        table.add_column(name, footer=f"{total:,}", justify="right")
    for shard, counts in sorted(report.shards.items()):
        table.add_row(short_shard(shard), *(f"{counts[name]:,}" for name in columns))
    return table


def _strangest(report: Report) -> Table:
    table = Table(
        title="Strongest anomalies", title_justify="left", show_header=False, box=None, padding=(0, 2)
    )
    for alert in report.strangest:
        table.add_row(Text(alert["key"], style="bold"), alert["severity"], alert["text"])
    return table


def _figures(report: Report) -> Table:
    table = Table.grid(padding=(0, 2))
    p50, p99 = report.latency_ms.get("p50"), report.latency_ms.get("p99")
    rows = {
        "sent": f"{report.sent:,} in {report.elapsed_s:.1f} s, {report.records_per_s:,.0f} records/s",
        "parked": ", ".join(f"{code} {n}" for code, n in sorted(report.parked.items())) or "none",
        "hydrated": f"{report.hydrated:,} full payloads in the failure store",
        "redrive": f"{report.redriven:,} repaired and sent again, {report.processed:,} of them stored",
        "anomalies": f"{report.anomalies:,}",
        "corrections": f"{report.corrected:,} recalculated, {report.manual:,} for manual review",
        "segments": f"{report.segments:,}",
        "ready": "never" if report.ready_s is None else f"{report.ready_s:.1f} s after the start",
        "latency": "unknown"
        if p50 is None or p99 is None
        else f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, device to processed",
        "limit": report.limit,
        "memory": ", ".join(f"{name} {part['end']:.0f} MB" for name, part in report.memory_mb.items()),
    }
    if report.restarts:
        rows["daemon restarts"] = f"{report.restarts}"
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), value)
    return table
