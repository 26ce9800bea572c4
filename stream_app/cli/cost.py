"""`stream-app cost`: what a month on AWS would cost, and which settings drive it."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from stream_app.cli.options import Json
from stream_app.cli.views import cost as shown
from stream_app.costs import prices as table
from stream_app.costs.bill import bill, total
from stream_app.costs.drivers import REMARKS, Change, changes
from stream_app.costs.load import MODES, Load, problems, with_settings
from stream_app.errors import ConfigError
from stream_app.settings import Settings, read_properties

_DEFAULT = Load(1.0, 1.0)
Records = Annotated[float, typer.Option("--records-per-s", help="Records a second, on average.")]
Bytes = Annotated[float, typer.Option("--bytes", help="A record's bytes on the stream, envelope included.")]
Shards = Annotated[int, typer.Option(help="The stream's shards; 0: as many as it takes.")]
Retention = Annotated[int, typer.Option(help="How long the stream keeps records.")]
Archive = Annotated[int, typer.Option(help="How long the bus's archive keeps events; 0: no archive.")]
Storage = Annotated[int, typer.Option(help="How many days of results are on S3.")]
Bus = Annotated[bool, typer.Option("--bus/--no-bus", help="Devices write to the bus, or to the stream.")]
Failed = Annotated[float, typer.Option(help="The share of records that are parked, 0 to 1.")]
Alerts = Annotated[float, typer.Option(help="The share of records that are anomalies, 0 to 1.")]
Devices = Annotated[int, typer.Option(help="How many devices there are.")]
Consumers = Annotated[int, typer.Option(help="How many applications read the stream.")]
PerCore = Annotated[float, typer.Option(help="Records a second of one core, as `make bench` measures them.")]
Tasks = Annotated[int, typer.Option(help="Fargate tasks of 1 vCPU and 2 GB; 0: as many as it takes.")]
Region = Annotated[str, typer.Option(help="A region of the price table.")]
PriceFile = Annotated[
    Path | None, typer.Option("--prices", help="Other prices, in the shipped table's form.")
]
Properties = Annotated[
    Path | None, typer.Option("--properties", help="The settings file; without one, the usual settings.")
]


def cost(
    records_per_s: Records,
    bytes_: Bytes,
    properties: Properties = None,
    shards: Shards = _DEFAULT.shards,
    retention_hours: Retention = _DEFAULT.retention_hours,
    archive_days: Archive = _DEFAULT.archive_days,
    storage_days: Storage = _DEFAULT.storage_days,
    bus: Bus = True,
    failed: Failed = _DEFAULT.failed,
    alerts: Alerts = _DEFAULT.alerts,
    devices: Devices = _DEFAULT.devices,
    consumers: Consumers = _DEFAULT.consumers,
    per_core: PerCore = _DEFAULT.per_core,
    tasks: Tasks = _DEFAULT.tasks,
    region: Region = "us-east-1",
    prices: PriceFile = None,
    as_json: Json = False,
) -> None:
    """Estimate the month's AWS bill by service, on-demand and provisioned, and what drives it."""
    load = Load(
        records_per_s,
        bytes_,
        shards=shards,
        retention_hours=retention_hours,
        archive_days=archive_days,
        storage_days=storage_days,
        through_bus=bus,
        failed=failed,
        alerts=alerts,
        devices=devices,
        consumers=consumers,
        per_core=per_core,
        tasks=tasks,
    )
    if properties is not None:
        pairs = read_properties(properties)
        load = with_settings(load, Settings.load(os.environ, pairs), pairs)
    wrong = problems(load)
    if wrong:
        raise ConfigError(wrong)
    _tell(load, table.load(prices, region), as_json)


def _tell(load: Load, prices: table.Prices, as_json: bool) -> None:
    bills = {mode: bill(load, prices, mode) for mode in MODES}
    found = changes(load, prices)
    if not as_json:
        shown.show(Console(), load, prices, bills, found)
        return
    told = {
        "prices": {"date": prices.date, "region": prices.region},
        "load": asdict(load),
        "shards": {mode: load.shards_of(mode) for mode in MODES},
        "tasks": load.tasks_of(),
        "total": {mode: total(lines) for mode, lines in bills.items()},
        "lines": {
            mode: [{**line._asdict(), "verified": prices[line.price].verified} for line in lines]
            for mode, lines in bills.items()
        },
        "changes": [Change._asdict(change) for change in found],
        "remarks": REMARKS,
    }
    typer.echo(msgspec.json.encode(told))
