"""`stream-app cost`: estimate the monthly AWS cost of a load, and the settings that drive it."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from stream_app.cli.flatten import flatten_options
from stream_app.cli.options import Json
from stream_app.cli.views import cost as view
from stream_app.costs import prices as table
from stream_app.costs.bill import bill, total
from stream_app.costs.drivers import REMARKS, Change, changes
from stream_app.costs.load import MODES, Load, find_problems, with_settings
from stream_app.errors import ConfigError
from stream_app.settings import Settings, read_properties

_DEFAULT = Load(1.0, 1.0)

Region = Annotated[str, typer.Option(metavar="REGION", help="Region of the price table.")]
PriceFile = Annotated[
    Path | None,
    typer.Option("--prices", metavar="FILE", help="Price table to use, in the format of the bundled one."),
]
Properties = Annotated[
    Path | None,
    typer.Option("--properties", metavar="FILE", help="Properties file; default settings if not given."),
]


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Options that describe the load."""

    records_per_s: Annotated[
        float, typer.Option("--records-per-s", metavar="RATE", help="Average number of records per second.")
    ]
    bytes_: Annotated[
        float,
        typer.Option(
            "--bytes", metavar="BYTES", help="Size of a record on the stream, including the envelope."
        ),
    ]
    shards: Annotated[
        int, typer.Option(metavar="COUNT", help="Number of shards of the stream; 0 for the number needed.")
    ] = _DEFAULT.shards
    retention_hours: Annotated[int, typer.Option(metavar="HOURS", help="Retention of the stream.")] = (
        _DEFAULT.retention_hours
    )
    archive_days: Annotated[
        int, typer.Option(metavar="DAYS", help="Retention of the event archive; 0 for no archive.")
    ] = _DEFAULT.archive_days
    storage_days: Annotated[int, typer.Option(metavar="DAYS", help="Days of results stored on S3.")] = (
        _DEFAULT.storage_days
    )
    bus: Annotated[
        bool, typer.Option("--bus/--no-bus", help="Devices write to the event bus or directly to the stream.")
    ] = True
    failed: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of records that are parked, 0 to 1.")
    ] = _DEFAULT.failed
    alerts: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of records that are anomalies, 0 to 1.")
    ] = _DEFAULT.alerts
    devices: Annotated[int, typer.Option(metavar="COUNT", help="Number of devices.")] = _DEFAULT.devices
    consumers: Annotated[
        int, typer.Option(metavar="COUNT", help="Number of applications that read the stream.")
    ] = _DEFAULT.consumers
    per_core: Annotated[
        float,
        typer.Option(metavar="RATE", help="Records per second and core, as measured by `make bench`."),
    ] = _DEFAULT.per_core
    tasks: Annotated[
        int,
        typer.Option(
            metavar="COUNT", help="Number of Fargate tasks of 1 vCPU and 2 GB; 0 for the number needed."
        ),
    ] = _DEFAULT.tasks

    def load(self) -> Load:
        """Return the load with default settings."""
        return Load(
            self.records_per_s,
            self.bytes_,
            shards=self.shards,
            retention_hours=self.retention_hours,
            archive_days=self.archive_days,
            storage_days=self.storage_days,
            through_bus=self.bus,
            failed=self.failed,
            alerts=self.alerts,
            devices=self.devices,
            consumers=self.consumers,
            per_core=self.per_core,
            tasks=self.tasks,
        )


@flatten_options
def cost(
    options: LoadOptions,
    properties: Properties = None,
    region: Region = "us-east-1",
    prices: PriceFile = None,
    as_json: Json = False,
) -> None:
    """Estimate the monthly AWS cost by service, for on-demand and provisioned mode, and its drivers."""
    load = options.load()
    if properties is not None:
        pairs = read_properties(properties)
        load = with_settings(load, Settings.load(os.environ, pairs), pairs)
    problems = find_problems(load)
    if problems:
        raise ConfigError(problems)
    _report(load, table.load(prices, region), as_json)


def _report(load: Load, prices: table.Prices, as_json: bool) -> None:
    bills = {mode: bill(load, prices, mode) for mode in MODES}
    drivers = changes(load, prices)
    if not as_json:
        view.show(Console(), load, prices, bills, drivers)
        return
    document = {
        "prices": {"date": prices.date, "region": prices.region},
        "load": asdict(load),
        "shards": {mode: load.shards_of(mode) for mode in MODES},
        "tasks": load.tasks_of(),
        "total": {mode: total(lines) for mode, lines in bills.items()},
        "lines": {
            mode: [{**line._asdict(), "verified": prices[line.price].verified} for line in lines]
            for mode, lines in bills.items()
        },
        "changes": [Change._asdict(change) for change in drivers],
        "remarks": REMARKS,
    }
    typer.echo(msgspec.json.encode(document))
