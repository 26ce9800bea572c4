"""`stream-app quarantine`: list the quarantined records and release single ones."""

from __future__ import annotations

import os

import msgspec
import typer

from stream_app import app as root
from stream_app.cli.options import Json, PositionText, Properties, err
from stream_app.errors import ConfigError, Problem
from stream_app.model.record import Position
from stream_app.model.segment import position_from_token
from stream_app.sinks.quarantine import Decision, S3QuarantineStore

app = typer.Typer(
    no_args_is_help=True,
    help="List and release quarantined records: records that ended their process and are skipped since.",
)


@app.command()
def ls(properties: Properties, as_json: Json = False) -> None:
    """List the quarantined records in order of shard and position."""
    store = _store(properties)
    found = [decision for shard in sorted(store.shards()) for decision in store.decisions(shard)]
    if as_json:
        typer.echo(msgspec.json.encode({"quarantined": found}).decode())
        return
    for decision in found:
        typer.echo(_line(decision))
    err.print(f"{len(found)} records in quarantine", highlight=False)


@app.command()
def forget(properties: Properties, position: PositionText) -> None:
    """Delete a quarantine decision, so that the record is processed when it is read again (by a replay).

    To send the record again as a new one, use `stream-app failures plan`.
    """
    shard, _, text = position.partition("/")
    try:
        parsed: Position = position_from_token(shard, text)
    except ValueError as error:
        hint = "write SHARD/SEQUENCE as `stream-app quarantine ls` shows it"
        raise ConfigError([Problem(f"{position!r} is not a position", hint)]) from error
    if not _store(properties).forget(parsed):
        err.print(f"{position} is not in quarantine", highlight=False)
        raise typer.Exit(1)
    err.print(f"{position} will be processed when it is read again", highlight=False)


def _store(properties: Properties) -> S3QuarantineStore:
    settings = root.load_settings(os.environ, properties)
    if not settings.bucket:
        raise ConfigError([Problem("app.bucket is not set", "add app.bucket to the properties file")])
    client = root.clients(os.environ, settings.region, attempts=10)
    return S3QuarantineStore(client("s3"), settings.bucket, settings.application)


def _line(decision: Decision) -> str:
    event = decision.event or "-"
    return f"{decision.position}  {decision.code}  {event}  {decision.stage}: {decision.reason}"
