"""`stream-app local`: the embedded AWS services."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from stream_app.cli.options import Application, Folder, ShardCount, err
from stream_app.cli.views.interrupt import until_interrupted

app = typer.Typer(no_args_is_help=True, help="Run the embedded AWS services.")


@app.command()
def up(
    application: Application = "stream-app",
    shards: ShardCount = 4,
    port: Annotated[
        int, typer.Option(metavar="PORT", help="Port to listen on; 0 for any free port.", min=0, max=65535)
    ] = 0,
    folder: Folder = Path(".stream-app"),
) -> None:
    """Start embedded AWS with the resources, pipes and functions of the template; Ctrl-C stops it."""
    from stream_app import app as root
    from stream_app.local.embedded import embedded, usage, write_properties

    with (
        until_interrupted() as stop,
        embedded(
            root.clients,
            application=application,
            shards=shards,
            folder=folder.resolve(),
            port=port,
            note=err.print,
        ) as aws,
    ):
        file = write_properties(aws, folder.resolve())
        Console().print(usage(aws, file), highlight=False, soft_wrap=True)
        stop.wait()


@app.command(hidden=True)
def runners(application: Application = "stream-app") -> None:
    """Run the pipes and functions of the template until SIGTERM."""
    from stream_app import app as root
    from stream_app.local.deployers.deploy import templates
    from stream_app.local.runners import serve
    from stream_app.telemetry import log

    log.configure()
    serve(root.clients(os.environ), templates(), application, sys.stdout)
