"""`stream-app audit` and `stream-app daemon`: commands for any AWS endpoint."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from stream_app.cli.options import Json, Properties, err

if TYPE_CHECKING:
    from stream_app.aws.clients import ClientFactory


def audit(
    properties: Properties,
    limit: Annotated[
        int, typer.Option(metavar="COUNT", help="Show at most this many positions of each kind.", min=0)
    ] = 20,
    pending_for: Annotated[
        str,
        typer.Option(
            metavar="DURATION", help="Tolerate pending records up to this age, such as 300s, 5m or 1h."
        ),
    ] = "5m",
    as_json: Json = False,
) -> None:
    """Compare the accepted records with the stored and parked ones; exit code 1 if they do not balance."""
    from stream_app import app as root
    from stream_app.cli.views.audit import run_audit, show
    from stream_app.recovery.find.times import parse_duration

    allowed = parse_duration(pending_for)
    settings = root.load_settings(os.environ, properties)
    found = run_audit(settings, root.clients(os.environ, settings.region, attempts=10), err, allowed)
    if as_json:
        typer.echo(found.to_json().decode())
    else:
        Console().print(show(found, limit))
    raise typer.Exit(0 if found.balanced else 1)


def daemon(
    properties: Properties,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TIMESTAMP",
            help="Start position of an application without leases, such as 2026-01-31T00:00:00Z.",
        ),
    ] = None,
    debug: Annotated[bool, typer.Option(help="Log the INFO messages of KCL too.")] = False,
) -> None:
    """Run the KCL daemon: forward signals, restart it after crashes, log JSON lines to stderr."""
    from stream_app import app as root
    from stream_app.daemon.initial_position import parse_timestamp, require_no_leases, starting_at
    from stream_app.daemon.launcher import LaunchOptions, run_daemon
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
        require_no_leases(client("dynamodb"), settings.application)
        overrides |= starting_at(seconds)
    stop = Stop()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.request())
    shards = _open_shards(client, settings.stream)
    options = LaunchOptions(os.environ, overrides, debug=debug, shards=shards)
    code = run_daemon(
        properties,
        options,
        on_line=json_lines(BestEffortFile(2), "DEBUG" if debug else settings.log_level),
        stop=stop,
        before=lambda worker: _release_leader_lock(client, settings.application, worker),
    )
    raise typer.Exit(code)


def _release_leader_lock(client: ClientFactory, application: str, worker: str) -> None:
    """Release the leader lock of a daemon that died on this host.

    Best effort: if the request is denied, KCL starts anyway and only takes longer to elect a leader.
    """
    from stream_app.daemon.leader_lock import release

    try:
        release(client("dynamodb"), application, worker)
    except Exception as error:
        err.print(f"cannot release the leader lock: {escape(str(error))}", highlight=False)


def _open_shards(client: ClientFactory, stream: str) -> int:
    """Return the number of open shards: what a single worker would hold."""
    summary = client("kinesis").describe_stream_summary(StreamName=stream)
    return summary["StreamDescriptionSummary"]["OpenShardCount"]
