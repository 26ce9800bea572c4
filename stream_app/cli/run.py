"""`stream-app run`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
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

DEFAULT_RATE = 200.0


def run(
    data: Data = "beijing-winter",
    shards: Annotated[int, typer.Option(help="Shards of the stream.", min=1, max=64)] = 4,
    rate: Rate = None,
    speed: Speed = "",
    via: Via = "bus",
    seed: Seed = None,
    faults: Faults = True,
    first: First = None,
    event: EventName = None,
    segment_seconds: Annotated[int, typer.Option(help="Length of a segment.", min=1)] = 5,
    acts: Annotated[
        str, typer.Option("--rehearse", help="Crashes and reshards: kill@3000,split@5000,merge@7000")
    ] = "",
    folder: Annotated[Path, typer.Option(help="Where logs go.")] = Path(".stream-app"),
    as_json: Json = False,
) -> None:
    """Run it all on this machine: embedded AWS, devices, the KCL consumer; ends when all is accounted for."""
    from stream_app import app as root
    from stream_app.cli.views.live import live
    from stream_app.cli.views.summary import render
    from stream_app.ingest.faults import SEED
    from stream_app.ingest.pacing import parse_speed
    from stream_app.local.run import chaos
    from stream_app.local.run.embedded_run import Options
    from stream_app.local.run.embedded_run import run as run_all
    from stream_app.local.run.stage import Stage

    stage = Stage()
    with until_interrupted() as stop:
        try:
            options = Options(
                data=data,
                shards=shards,
                rate=rate if rate or speed else DEFAULT_RATE,
                speed=parse_speed(speed or "max"),
                via=via_of(via),
                seed=SEED if seed is None else seed,
                faults=faults,
                first=first,
                event=event,
                segment_seconds=segment_seconds,
                acts=tuple(chaos.parse(acts)),
                folder=folder.resolve(),
            )
            with live(err, stage):
                report = run_all(options, root.clients, stage, stop)
        except Exception as error:
            if as_json:
                typer.echo(json.dumps({"balanced": False, "error": _told(error), **stage.to_json()}))
            elif stage.sent:
                err.print(
                    f"{stage.name}: {stage.sent:,} sent, {stage.tracker.records:,} processed", highlight=False
                )
            raise
        report = replace(report, interrupted=report.interrupted or stop.is_set())
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        Console().print(render(report))
    if report.interrupted:
        raise typer.Exit(130)
    raise typer.Exit(0 if report.balanced and not report.unsendable else 1)


def _told(error: Exception) -> str:
    from stream_app.errors import StreamAppError, explain

    if isinstance(error, StreamAppError):
        return str(error)
    told = explain(error)
    return f"{type(error).__name__}: {error}" if told is None else told.what
