"""Progress of a run: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stream_app.local.run.status import RunStatus

_REFRESH_SECONDS = 0.25
_PLAIN_SECONDS = 10.0  # between two lines if there is no terminal


@contextmanager
def live(console: Console, stage: RunStatus) -> Iterator[None]:
    """Show the progress of a run while the block runs."""
    done = threading.Event()
    follow = _terminal if console.is_terminal else _plain
    thread = threading.Thread(target=follow, args=(console, stage, done), name="live", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=5)


def _terminal(console: Console, stage: RunStatus, done: threading.Event) -> None:
    with Live(_table(stage), console=console, refresh_per_second=4, transient=True) as view:
        while not done.wait(_REFRESH_SECONDS):
            view.update(_table(stage))


def _plain(console: Console, stage: RunStatus, done: threading.Event) -> None:
    printed, last = 0, time.monotonic()
    while True:
        ended = done.wait(_REFRESH_SECONDS)
        for note in stage.notes[printed:]:
            console.print(f"{stage.elapsed:6.1f} s  {note}", highlight=False)
            printed += 1
        if stage.sent and not ended and time.monotonic() - last > _PLAIN_SECONDS:
            last = time.monotonic()
            console.print(f"{stage.elapsed:6.1f} s  {_line(stage)}", highlight=False)
        if ended:
            return


def _line(stage: RunStatus) -> str:
    tracker = stage.tracker
    return (
        f"sent {stage.sent:,}, processed {tracker.records:,}, committed {tracker.committed:,}, "
        f"failed {sum(tracker.failed.values()):,}, anomalies {tracker.anomalies:,}"
    )


def _table(stage: RunStatus) -> Table:
    tracker = stage.tracker
    table = Table.grid(padding=(0, 2))
    p50, p99 = tracker.latency.percentile(0.5), tracker.latency.percentile(0.99)
    latency = "" if p50 is None or p99 is None else f"p50 {p50:.0f} ms, p99 {p99:.0f} ms"
    rows: dict[str, RenderableType] = {
        f"{stage.elapsed:.0f} s": Text(stage.name, style="bold"),
        "shards": f"{len(tracker.ready)} initialized",
        "sent": f"{stage.sent:,}",
        "processed": f"{tracker.records:,}, of which {tracker.repeated:,} repeated",
        "committed": f"{tracker.committed:,} in {tracker.segments:,} segments",
        "failed": ", ".join(f"{code} {count:,}" for code, count in sorted(tracker.failed.items())) or "none",
        "anomalies": f"{tracker.anomalies:,}",
        "latency": latency or "-",
    }
    for name, value in rows.items():
        table.add_row(Text(name, style="dim"), value)
    return table
