"""`stream-app run`: the whole application on this machine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from stream_app.cli.flatten import flatten_options
from stream_app.cli.options import Faults, Folder, Json, Playback, ShardCount, err, parse_via
from stream_app.cli.views.interrupt import until_interrupted

DEFAULT_RATE = 200.0
"""Records per second, if neither --rate nor --speed is given."""


@flatten_options
def run(
    playback: Playback,
    shards: ShardCount = 4,
    faults: Faults = True,
    segment_seconds: Annotated[
        int, typer.Option(metavar="SECONDS", help="Maximum duration of a segment.", min=1)
    ] = 5,
    acts: Annotated[
        str,
        typer.Option(
            "--rehearse",
            metavar="ACTION@COUNT,…",
            help="Crash the daemon and reshard the stream after COUNT records: kill@3000,split@5000,merge@7000.",
        ),
    ] = "",
    folder: Folder = Path(".stream-app"),
    as_json: Json = False,
) -> None:
    """Run embedded AWS, devices and the KCL consumer on this machine until every record is accounted for."""
    from stream_app import app as root
    from stream_app.cli.views.live import live
    from stream_app.cli.views.summary import render
    from stream_app.ingest.faults import SEED
    from stream_app.ingest.pacing import parse_speed
    from stream_app.local.run import chaos
    from stream_app.local.run.embedded_run import Options
    from stream_app.local.run.embedded_run import run as run_all
    from stream_app.local.run.status import RunStatus

    stage = RunStatus()
    with until_interrupted() as stop:
        try:
            options = Options(
                data=playback.data,
                shards=shards,
                rate=playback.rate if playback.rate or playback.speed else DEFAULT_RATE,
                speed=parse_speed(playback.speed or "max"),
                via=parse_via(playback.via),
                seed=SEED if playback.seed is None else playback.seed,
                faults=faults,
                first=playback.first,
                event=playback.event,
                segment_seconds=segment_seconds,
                actions=tuple(chaos.parse(acts)),
                folder=folder.resolve(),
            )
            with live(err, stage):
                report = run_all(options, root.clients, stage, stop)
        except Exception as error:
            if as_json:
                typer.echo(json.dumps({"balanced": False, "error": _message(error), **stage.to_json()}))
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


def _message(error: Exception) -> str:
    from stream_app.errors import StreamAppError, explain

    if isinstance(error, StreamAppError):
        return str(error)
    problem = explain(error)
    return f"{type(error).__name__}: {error}" if problem is None else problem.what
