"""`stream-app devices`: what sends data sets."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer
from rich.console import Console

from stream_app.cli.options import (
    Data,
    EventName,
    Faults,
    First,
    Json,
    Rate,
    Seed,
    Speed,
    Via,
    err,
    via_of,
)
from stream_app.cli.views.interrupt import until_interrupted

app = typer.Typer(no_args_is_help=True, help="Devices that send data sets.")


@app.callback()
def _group() -> None:
    """Devices that send data sets."""


@app.command()
def play(
    data: Data = "beijing-winter",
    bus: Annotated[str, typer.Option(help="The event bus.")] = "stream-app",
    stream: Annotated[
        str, typer.Option(help="The stream, for what cannot travel over the bus.")
    ] = "stream-app-events",
    rate: Rate = None,
    speed: Speed = "max",
    via: Via = "bus",
    seed: Seed = None,
    faults: Faults = False,
    first: First = None,
    event: EventName = None,
    as_json: Json = False,
) -> None:
    """Publish a data set as its devices would, with the endpoint and credentials of the environment."""
    from stream_app import app as root
    from stream_app.cli.views.sent import as_table, progressing, to_json
    from stream_app.ingest import devices
    from stream_app.ingest.faults import SEED
    from stream_app.ingest.pacing import parse_speed

    client = root.clients(os.environ)
    with until_interrupted() as stop, progressing(err) as progress:
        sent = devices.play(
            data,
            events_client=client("events"),
            kinesis_client=client("kinesis"),
            bus=bus,
            stream=stream,
            rate=rate,
            speed=parse_speed(speed),
            via=via_of(via),
            seed=SEED if seed is None else seed,
            faults=faults,
            first=first,
            event=event,
            progress=progress,
            stop=stop,
        )
    if as_json:
        typer.echo(json.dumps(to_json(sent)))
    else:
        Console().print(as_table(sent))
    if sent.stopped:
        raise typer.Exit(130)
    raise typer.Exit(1 if sent.unsendable else 0)
