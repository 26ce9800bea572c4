"""`stream-app corrections`: inspect corrections, retry refused ones, and reapply them after a replay."""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console

from stream_app.cli.failures_options import open_store
from stream_app.cli.options import Json, PositionText, Properties, err
from stream_app.cli.views import corrections as view
from stream_app.errors import ConfigError, FatalError, Problem, aws_error_code
from stream_app.event_loading import load_registry
from stream_app.model.record import Position
from stream_app.model.segment import position_from_token
from stream_app.recovery.correct.calculation.recalculate import UncorrectableError
from stream_app.recovery.correct.corrector import Corrector
from stream_app.recovery.correct.factory import corrector_of
from stream_app.recovery.correct.history import History, history_table
from stream_app.recovery.correct.history_entry import Entry
from stream_app.recovery.correct.reapply import reapply_all
from stream_app.recovery.correct.request import NotReadyError, correct_refused
from stream_app.settings import Settings

if TYPE_CHECKING:
    from stream_app.aws.clients import ClientFactory

app = typer.Typer(no_args_is_help=True, help="Inspect, retry and reapply corrections of stored rows.")

_NO_QUEUE = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"})


@dataclass(frozen=True, slots=True)
class _Context:
    settings: Settings
    client: ClientFactory
    history: History


@app.command()
def ls(
    properties: Properties,
    manual: Annotated[bool, typer.Option(help="List only the requests for manual review.")] = False,
    limit: Annotated[int, typer.Option(metavar="COUNT", help="Maximum number of rows.", min=1)] = 50,
    as_json: Json = False,
) -> None:
    """List corrections and refusals in order of shard and position."""
    context = _open_context(properties)
    found = (entry for entry in _entries(context) if entry.refusal is not None or not manual)
    listed = list(islice(found, limit))
    if as_json:
        typer.echo(
            msgspec.json.encode([{"status": e.status, **msgspec.to_builtins(e)} for e in listed]).decode()
        )
    else:
        Console().print(view.listing(listed, _manual_queue_length(context)))


@app.command()
def show(position: PositionText, properties: Properties, as_json: Json = False) -> None:
    """Show the history of one position: request, object version, values before and after, rows not changed."""
    entry = _entry(_open_context(properties), _parse_position(position))
    if as_json:
        typer.echo(msgspec.json.encode({"status": entry.status, **msgspec.to_builtins(entry)}).decode())
    else:
        Console().print(view.history(entry))


@app.command()
def retry(
    position: PositionText,
    properties: Properties,
    by: Annotated[
        str, typer.Option(metavar="NAME", help="Name of the requester; the current user if not given.")
    ] = "",
) -> None:
    """Retry a correction that was refused; a position that is corrected already stays unchanged."""
    context, parsed = _open_context(properties), _parse_position(position)
    entry, requester = _entry(context, parsed), by or getpass.getuser()
    request = msgspec.structs.replace(entry.request, id=f"{parsed}/{requester}", by=requester)
    try:
        correct_refused(request, context.history, _corrector(context))
    except (UncorrectableError, NotReadyError) as error:
        raise FatalError(f"{position} cannot be corrected: {error}") from error
    Console().print(view.history(_entry(context, parsed)))


@app.command()
def reapply(properties: Properties, as_json: Json = False) -> None:
    """Apply every recorded correction again, after a replay that stored the original rows."""
    context = _open_context(properties)
    with err.status("reapplying corrections"):
        done = reapply_all(_entries(context), _corrector(context).reapply)
    if as_json:
        typer.echo(msgspec.json.encode(done).decode())
    else:
        err.print(view.reapplied(done))
    raise typer.Exit(0 if done.complete else 1)


def _open_context(properties: Path) -> _Context:
    store = open_store(properties, None)
    table = history_table(store.settings.application, os.environ)
    return _Context(store.settings, store.client, History(store.client("dynamodb"), table, _now_ms))


def _corrector(context: _Context) -> Corrector:
    registry = load_registry(dry_run=False)
    return corrector_of(context.settings, context.client, registry, context.history, _now_ms)


def _entries(context: _Context) -> Iterator[Entry]:
    try:
        yield from context.history.entries(context.settings.application)
    except Exception as error:
        if (
            aws_error_code(error) != "ResourceNotFoundException"
        ):  # without the table, nothing was ever corrected
            raise


def _entry(context: _Context, position: Position) -> Entry:
    found = context.history.get(context.settings.application, position)
    if found is None:
        hint = "list the positions with `stream-app corrections ls`"
        raise ConfigError([Problem(f"no correction was requested for {position}", hint)])
    return found


def _parse_position(position: str) -> Position:
    shard, _, text = position.rpartition("/")
    try:
        if shard:
            return position_from_token(shard, text)
    except ValueError:
        pass
    hint = "write SHARD/SEQUENCE or SHARD/SEQUENCE.SUB"
    raise ConfigError([Problem(f"{position!r} is not a position", hint)])


def _manual_queue_length(context: _Context) -> int | None:
    """Return the approximate number of messages in the manual-review queue; None if there is no such queue."""
    sqs = context.client("sqs")
    try:
        url = sqs.get_queue_url(QueueName=f"{context.settings.application}-manual")["QueueUrl"]
    except Exception as error:
        if aws_error_code(error) in _NO_QUEUE:
            return None
        raise
    answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
    return int(answer["Attributes"]["ApproximateNumberOfMessages"])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
