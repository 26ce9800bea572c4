"""What devices sent, while they do and afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from stream_app.ingest.producer import Sent


@contextmanager
def progressing(console: Console) -> Iterator[Callable[[int], None]]:
    """A function that is told how many were sent, and shows it."""
    columns = (SpinnerColumn(), TextColumn("sent {task.completed:,.0f}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task("sent", total=None)

        def progress(count: int) -> None:
            shown.update(task, completed=count)

        yield progress


def to_json(sent: Sent) -> dict[str, Any]:
    """Built-in types."""
    return {
        "sent": sent.sent,
        "by_route": dict(sent.by_route),
        "expected": {str(name or "stored"): count for name, count in sent.expected.items()},
        "seconds": round(sent.seconds, 3),
        "records_per_s": round(sent.per_second, 1),
        "put_again": sent.again,
        "unsent": sent.unsent,
        "stopped": sent.stopped,
        "unsendable": {why: asdict(some) for why, some in sent.unsendable.items()},
    }


def as_table(sent: Sent) -> Table:
    """For people."""
    table = Table(
        title=f"sent {sent.sent:,} in {sent.seconds:.1f} s, {sent.per_second:,.0f}/s", title_justify="left"
    )
    table.add_column("should become")
    table.add_column("records", justify="right")
    for name, count in sorted(sent.expected.items(), key=lambda pair: str(pair[0] or "")):
        table.add_row(str(name or "stored"), f"{count:,}")
    for why, some in sent.unsendable.items():
        table.add_row(f"not sent, {why} ({rows_of(some.rows, some.count)})", f"{some.count:,}", style="red")
    return table


def rows_of(rows: Sequence[int], count: int) -> str:
    """The rows of a data set that are meant: `rows 3, 17 and more`."""
    named = ", ".join(map(str, rows))
    return f"row{'s' if len(rows) != 1 else ''} {named}{' and more' if count > len(rows) else ''}"
