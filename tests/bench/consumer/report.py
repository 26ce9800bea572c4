"""Tables of the results for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.consumer import linear
from tests.bench.consumer.measure import Found
from tests.bench.consumer.memory import Memory
from tests.bench.consumer.paced import Paced
from tests.bench.consumer.parallel import Parallel
from tests.bench.consumer.ways import OURS, Way


def comparison(found: Found) -> Table:
    """Compare the variants for one case."""
    table = Table(title=f"Complete consumer: {found.case.name}", title_justify="left")
    for heading in (
        "",
        "records/CPU s",
        "records/s, one core",
        "ours / other, CPU",
        "ours / other, wall",
        "start s",
        "MB",
    ):
        table.add_column(heading, justify="left" if not heading else "right")
    for way, timings in found.timings.items():
        table.add_row(
            way.name,
            f"{found.best(way):,.0f}",
            f"{found.best(way, wall=True):,.0f}",
            *(("", "") if way == OURS else (f"{found.ratio(way, wall=wall):.2f}" for wall in (False, True))),
            f"{min(t.start for t in timings):.2f}",
            f"{max(t.rss_mb for t in timings):.0f}",
        )
    return table


def stages(profile: Mapping[str, Any]) -> Table:
    """CPU time by stage."""
    table = Table(title="CPU time of this application by stage", title_justify="left")
    table.add_column("stage")
    table.add_column("share", justify="right")
    for stage, share in profile["shares"].items():
        if share >= 0.001:
            table.add_row(stage, f"{share:.1%}")
    return table


def grid(points: Sequence[Found], ways: Sequence[Way]) -> Table:
    """One row per case: our rate and its ratio to the other variants."""
    table = Table(title="By payload, devices, bad records, batch size, detector", title_justify="left")
    for heading in ("devices", "payload", "bad", "batch", "detector", "records/CPU s", "records/s"):
        table.add_column(heading, justify="right")
    for way in ways:
        table.add_column(f"ours / {way.name.partition(':')[0]}", justify="right")
    for found in points:
        case = found.case
        ratios = [f"{found.ratio(way):.2f}" if way in found.timings else "" for way in ways]
        texts = (
            f"{case.devices:,}",
            f"{case.payload:,} B",
            f"{case.bad:.0%}",
            f"{case.batch:,}",
            case.detector,
        )
        table.add_row(*texts, f"{found.best(OURS):,.0f}", f"{found.best(OURS, wall=True):,.0f}", *ratios)
    return table


def show(*tables: Table) -> None:
    """Print tables to stdout."""
    console = Console(width=140)
    for table in tables:
        console.print(table)


def shards(found: Sequence[Parallel], how: str = "") -> Table:
    """Throughput by number of busy shards."""
    table = Table(title=f"Busy shards in parallel, all far behind the tip, {how}", title_justify="left")
    for heading in ("busy shards", "records/CPU s", "ratio", "records/s"):
        table.add_column(heading, justify="right")
    for one in found:
        rates = (f"{one.per_cpu_second:,.0f}", f"{one.ratio:.2f}", f"{one.per_second:,.0f}")
        table.add_row(str(one.shards), *rates)
    return table


def tips(found: Sequence[Paced]) -> Table:
    """Throughput by number of shards at the tip."""
    table = Table(title="Shards at the tip, 250 records/s each in batches of 50", title_justify="left")
    for heading in ("shards", "records/CPU s", "ratio", "batch ms", "cores"):
        table.add_column(heading, justify="right")
    for one in found:
        texts = (f"{one.per_cpu_second:,.0f}", f"{one.ratio:.2f}", f"{one.batch_ms:.2f}", f"{one.cores:.2f}")
        table.add_row(str(one.shards), *texts)
    return table


def memory(found: Memory, how: str = "") -> Table:
    """Memory by number of shards."""
    title = (
        f"{how}: {found.mb_per_extra_shard:.1f} MB per additional shard "
        f"({found.busy_per_extra_shard:.1f} busy); ready in {found.ready_ms:.0f} ms"
    )
    table = Table(title=title, title_justify="left")
    for heading in ("shards", "processes", "MB (PSS)", "busy"):
        table.add_column(heading, justify="right")
    for count, mb in found.mb.items():
        table.add_row(str(count), str(found.processes[count]), f"{mb:,.0f}", f"{found.busy[count]:,.0f}")
    return table


def devices(found: linear.Found) -> Table:
    """Cost per record by number of devices."""
    title = (
        f"By number of devices, with state: record = stages and the share of snapshots, on a busy core;\n"
        f"alone = the same for a single shard with {linear.FULL_SHARD:,} records/s. "
        f"A device's first record: {found.first_meeting:.1f} µs."
    )
    table = Table(title=title, title_justify="left")
    for heading in (
        "devices",
        "stages µs",
        "snapshot s",
        "every s",
        "MB",
        "record µs",
        "rate",
        "alone µs",
        "restore s",
    ):
        table.add_column(heading, justify="right")
    for one in found.by_devices:
        ratio = f"{found.ratio(one):.2f}"
        texts = (f"{one.stages:.2f}", f"{one.snapshot:.2f}", f"{one.every:.0f}", f"{one.mb:,.1f}")
        rest = (f"{one.record:.2f}", ratio, f"{one.alone:.2f}", f"{one.restore:.2f}")
        table.add_row(f"{one.devices:,}", *texts, *rest)
    return table
