"""The records that devices sent: progress and summary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TypedDict

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from stream_app.ingest.producer import Sent


class SentDocument(TypedDict):
    """The summary of the records that devices sent, as JSON."""

    sent: int
    by_route: dict[str, int]
    expected: dict[str, int]
    seconds: float
    records_per_s: float
    put_again: int
    unsent: int
    stopped: bool
    unsendable: dict[str, dict[str, object]]


@contextmanager
def progressing(console: Console) -> Iterator[Callable[[int], None]]:
    """Yield a function that shows the number of sent records."""
    columns = (SpinnerColumn(), TextColumn("sent {task.completed:,.0f}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("sent", total=None)

        def progress(count: int) -> None:
            bars.update(task, completed=count)

        yield progress


def to_json(sent: Sent) -> SentDocument:
    """Return the summary as a JSON document."""
    return {
        "sent": sent.sent,
        "by_route": dict(sent.by_route),
        "expected": {str(name or "stored"): count for name, count in sent.expected.items()},
        "seconds": round(sent.seconds, 3),
        "records_per_s": round(sent.per_second, 1),
        "put_again": sent.again,
        "unsent": sent.unsent,
        "stopped": sent.stopped,
        "unsendable": {why: asdict(rows) for why, rows in sent.unsendable.items()},
    }


def as_table(sent: Sent) -> Table:
    """Render the number of sent records by expected outcome."""
    table = Table(
        title=f"sent {sent.sent:,} in {sent.seconds:.1f} s, {sent.per_second:,.0f}/s", title_justify="left"
    )
    table.add_column("expected outcome")
    table.add_column("records", justify="right")
    for name, count in sorted(sent.expected.items(), key=lambda pair: str(pair[0] or "")):
        table.add_row(str(name or "stored"), f"{count:,}")
    for why, unsent in sent.unsendable.items():
        rows = format_rows(unsent.rows, unsent.count)
        table.add_row(f"not sent, {why} ({rows})", f"{unsent.count:,}", style="red")
    return table


def format_rows(rows: Sequence[int], count: int) -> str:
    """Format row numbers of a data set, such as `rows 3, 17 and more`; `count` is the number of all such rows."""
    named = ", ".join(map(str, rows))
    return f"row{'s' if len(rows) != 1 else ''} {named}{' and more' if count > len(rows) else ''}"
