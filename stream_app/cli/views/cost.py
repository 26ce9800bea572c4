"""The monthly cost estimate as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from stream_app.costs.bill import Line, total
from stream_app.costs.drivers import REMARKS, Change
from stream_app.costs.load import MODES, Load
from stream_app.costs.prices import Prices


def show(
    console: Console, load: Load, prices: Prices, bills: Mapping[str, list[Line]], changes: Sequence[Change]
) -> None:
    """Print the cost by service and in total, the settings that change it most, and the assumptions."""
    console.print(_services(load, bills))
    console.print(_drivers(changes))
    shards = ", ".join(f"{load.shards_of(mode)} shards {mode}" for mode in MODES)
    console.print(f"{shards}; {load.tasks_of()} tasks of {load.task_vcpu:g} vCPU, {load.task_gb:g} GB")
    unverified = sorted(
        {line.price for lines in bills.values() for line in lines if not prices[line.price].verified}
    )
    source = f"List prices of {prices.region} as of {prices.date}."
    console.print(f"{source} Not verified: {', '.join(unverified)}" if unverified else source)
    for remark in REMARKS:
        console.print(remark)


def _services(load: Load, bills: Mapping[str, list[Line]]) -> Table:
    title = f"Monthly cost of {load.records_per_s:g} records/s of {load.size:g} bytes"
    table = Table(title=title, title_justify="left")
    table.add_column("service")
    for mode in bills:
        table.add_column(f"{mode}, $", justify="right")
    services = dict.fromkeys(line.service for lines in bills.values() for line in lines)
    for service in services:
        sums = [total([line for line in lines if line.service == service]) for lines in bills.values()]
        table.add_row(service, *(f"{dollars:,.2f}" for dollars in sums))
    table.add_section()
    table.add_row("total", *(f"{total(lines):,.2f}" for lines in bills.values()))
    return table


def _drivers(changes: Sequence[Change]) -> Table:
    table = Table(title="Cost drivers: change in dollars per month", title_justify="left")
    table.add_column("setting")
    table.add_column("from → to")
    for mode in MODES:
        table.add_column(mode, justify="right")
    for change in changes:
        table.add_row(
            change.setting,
            f"{change.now} → {change.other}",
            *(f"{change.dollars[mode]:+,.2f}" for mode in MODES),
        )
    return table
