"""Live progress of a run on a terminal; plain lines where there is none."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stream_app.local.run.stage import Stage

_EVERY = 0.25  # seconds between two pictures
_PLAIN_EVERY = 10.0  # seconds between two lines where there is no terminal


@contextmanager
def live(console: Console, stage: Stage) -> Iterator[None]:
    """Show how far the run has come while the block runs."""
    done = threading.Event()
    follow = _terminal if console.is_terminal else _plain
    thread = threading.Thread(target=follow, args=(console, stage, done), name="live", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=5)


def _terminal(console: Console, stage: Stage, done: threading.Event) -> None:
    with Live(_picture(stage), console=console, refresh_per_second=4, transient=True) as view:
        while not done.wait(_EVERY):
            view.update(_picture(stage))


def _plain(console: Console, stage: Stage, done: threading.Event) -> None:
    told, last = 0, time.monotonic()
    while True:
        ended = done.wait(_EVERY)
        for note in stage.notes[told:]:
            console.print(f"{stage.elapsed:6.1f} s  {note}", highlight=False)
            told += 1
        if stage.sent and not ended and time.monotonic() - last > _PLAIN_EVERY:
            last = time.monotonic()
            console.print(f"{stage.elapsed:6.1f} s  {_line(stage)}", highlight=False)
        if ended:
            return


def _line(stage: Stage) -> str:
    tracker = stage.tracker
    return (
        f"sent {stage.sent:,}, processed {tracker.records:,}, committed {tracker.committed:,}, "
        f"failed {sum(tracker.failed.values()):,}, anomalies {tracker.anomalies:,}"
    )


def _picture(stage: Stage) -> Table:
    tracker = stage.tracker
    table = Table.grid(padding=(0, 2))
    p50, p99 = tracker.latency.percentile(0.5), tracker.latency.percentile(0.99)
    late = "" if p50 is None or p99 is None else f"p50 {p50:.0f} ms, p99 {p99:.0f} ms"
    rows: dict[str, RenderableType] = {
        f"{stage.elapsed:.0f} s": Text(stage.name, style="bold"),
        "shards": f"{len(tracker.ready)} initialised",
        "sent": f"{stage.sent:,}",
        "processed": f"{tracker.records:,}, of which {tracker.repeated:,} repeated",
        "committed": f"{tracker.committed:,} in {tracker.segments:,} segments",
        "failed": ", ".join(f"{code} {count:,}" for code, count in sorted(tracker.failed.items())) or "none",
        "anomalies": f"{tracker.anomalies:,}",
        "latency": late or "-",
    }
    for name, value in rows.items():
        table.add_row(Text(name, style="dim"), value)
    return table
