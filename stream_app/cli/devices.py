"""`stream-app devices`: simulated devices that publish data sets."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer
from rich.console import Console

from stream_app.cli.flatten import flatten_options
from stream_app.cli.options import Faults, Json, Playback, err, parse_via
from stream_app.cli.views.interrupt import until_interrupted

app = typer.Typer(no_args_is_help=True, help="Publish data sets as simulated devices.")


@app.callback()
def _group() -> None:
    """Publish data sets as simulated devices."""


@app.command()
@flatten_options
def play(
    playback: Playback,
    bus: Annotated[str, typer.Option(metavar="NAME", help="Event bus to publish to.")] = "stream-app",
    stream: Annotated[
        str,
        typer.Option(metavar="NAME", help="Data stream for records that EventBridge cannot transport."),
    ] = "stream-app-events",
    faults: Faults = False,
    as_json: Json = False,
) -> None:
    """Publish a data set, with the AWS endpoint and credentials of the environment."""
    from stream_app import app as root
    from stream_app.cli.views.sent import as_table, progressing, to_json
    from stream_app.ingest.devices import PlayOptions
    from stream_app.ingest.devices import play as play_data
    from stream_app.ingest.faults import SEED
    from stream_app.ingest.pacing import parse_speed
    from stream_app.ingest.publish_options import Destination, PublishOptions

    client = root.clients(os.environ)
    with until_interrupted() as stop, progressing(err) as progress:
        sent = play_data(
            playback.data,
            Destination(client("events"), client("kinesis"), bus, stream),
            PlayOptions(
                seed=SEED if playback.seed is None else playback.seed,
                faults=faults,
                event=playback.event,
                first=playback.first,
            ),
            PublishOptions(
                via=parse_via(playback.via),
                rate=playback.rate,
                speed=parse_speed(playback.speed or "max"),
                progress=progress,
                stop=stop,
            ),
        )
    if as_json:
        typer.echo(json.dumps(to_json(sent)))
    else:
        Console().print(as_table(sent))
    if sent.stopped:
        raise typer.Exit(130)
    raise typer.Exit(1 if sent.unsendable else 0)
