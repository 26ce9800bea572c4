"""`stream-app audit` and `stream-app daemon`: what runs against any AWS."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from stream_app.cli.options import Json, Properties, err


def audit(
    properties: Properties,
    limit: Annotated[int, typer.Option(help="Positions to name of each kind.", min=0)] = 20,
    pending_for: Annotated[
        str, typer.Option(help="Records pending for longer do not balance: 300s, 5m, 1h.")
    ] = "5m",
    as_json: Json = False,
) -> None:
    """Compare what the stream holds with what is stored and parked; exit code 1 when it does not balance."""
    from stream_app import app as root
    from stream_app.cli.views.audit import checked, show
    from stream_app.recovery.find.times import duration

    allowed = duration(pending_for)
    settings = root.load_settings(os.environ, properties)
    found = checked(settings, root.clients(os.environ, settings.region, attempts=10), err, allowed)
    if as_json:
        typer.echo(found.to_json().decode())
    else:
        Console().print(show(found, limit))
    raise typer.Exit(0 if found.balanced else 1)


def daemon(
    properties: Properties,
    start: Annotated[
        str | None, typer.Option("--from", help="Start a new application there: 2026-01-31T00:00:00Z")
    ] = None,
    debug: Annotated[bool, typer.Option(help="KCL's own messages too.")] = False,
) -> None:
    """Start the KCL daemon and own it: forwards signals, restarts after crashes, logs JSON lines to stderr."""
    from stream_app import app as root
    from stream_app.daemon.initial_position import parse_timestamp, refuse_leases, starting_at
    from stream_app.daemon.launcher import run_daemon
    from stream_app.daemon.log import json_lines
    from stream_app.daemon.supervisor import Stop
    from stream_app.telemetry.best_effort import BestEffortFile, open_standard_files

    open_standard_files()
    settings = root.load_settings(os.environ, properties)
    client = root.clients(os.environ, settings.region)
    root.check(settings, client)
    overrides: dict[str, str | None] = {}
    if start is not None:
        seconds = parse_timestamp(start, time.time())
        refuse_leases(client("dynamodb"), settings.application)
        overrides |= starting_at(seconds)
    stop = Stop()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.request())
    code = run_daemon(
        properties,
        environ=os.environ,
        overrides=overrides,
        on_line=json_lines(BestEffortFile(2), "DEBUG" if debug else settings.log_level),
        stop=stop,
        debug=debug,
        before=lambda worker: _give_back(client, settings.application, worker),
        shards=_open_shards(client, settings.stream),
    )
    raise typer.Exit(code)


def _give_back(client: Callable[[str], Any], application: str, worker: str) -> None:
    """The leader lock of a daemon that died here; without the permission KCL only takes longer."""
    from stream_app.daemon.leader_lock import release

    try:
        release(client("dynamodb"), application, worker)
    except Exception as error:
        err.print(f"the leader lock was not looked at: {escape(str(error))}", highlight=False)


def _open_shards(client: Callable[[str], Any], stream: str) -> int:
    """How many shards a worker holds when it is alone."""
    summary = client("kinesis").describe_stream_summary(StreamName=stream)
    return int(summary["StreamDescriptionSummary"]["OpenShardCount"])
