"""`stream-app corrections`: what was corrected, what people must look at, and their own try at it."""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from stream_app import app as root
from stream_app.cli.failures_options import store_of
from stream_app.cli.options import err
from stream_app.cli.views import corrections as shown
from stream_app.errors import ConfigError, FatalError, Problem, code_of
from stream_app.event_loading import load_registry
from stream_app.model.record import Position
from stream_app.model.segment import from_token
from stream_app.recovery.correct.calculation.recalculate import ImpossibleError
from stream_app.recovery.correct.history import Entry, History, table_of
from stream_app.recovery.correct.reapply import reapply_all
from stream_app.recovery.correct.request import EarlyError, again
from stream_app.recovery.correct.work import Corrector, corrector_of
from stream_app.settings import Settings

app = typer.Typer(
    no_args_is_help=True, help="Corrections: what was changed after it was stored, and by whom."
)

_NO_QUEUE = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"})

Properties = Annotated[Path, typer.Option("--properties", help="The .properties file.", exists=True)]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
Place = Annotated[str, typer.Argument(help="SHARD/SEQUENCE, or SHARD/SEQUENCE.SUB, as ls shows it.")]


@dataclass(frozen=True, slots=True)
class _Desk:
    settings: Settings
    client: root.Client
    history: History


@app.command()
def ls(
    properties: Properties,
    manual: Annotated[bool, typer.Option(help="Only what people must look at.")] = False,
    limit: Annotated[int, typer.Option(help="How many.", min=1)] = 50,
    as_json: Json = False,
) -> None:
    """List corrections and refusals in order of shard and position."""
    desk = _desk(properties)
    found = (entry for entry in _entries(desk) if entry.refusal is not None or not manual)
    listed = list(islice(found, limit))
    if as_json:
        typer.echo(
            msgspec.json.encode([{"status": e.status, **msgspec.to_builtins(e)} for e in listed]).decode()
        )
    else:
        Console().print(shown.listing(listed, _letters(desk)))


@app.command()
def show(place: Place, properties: Properties, as_json: Json = False) -> None:
    """Show one position's history: who asked, when, which version, before and after, and what was left as it was."""
    entry = _entry(_desk(properties), _position(place))
    if as_json:
        typer.echo(msgspec.json.encode({"status": entry.status, **msgspec.to_builtins(entry)}).decode())
    else:
        Console().print(shown.story(entry))


@app.command()
def retry(
    place: Place,
    properties: Properties,
    by: Annotated[str, typer.Option(help="Who asks; the user by default.")] = "",
) -> None:
    """Try once more to correct what people were asked to look at; what was corrected once stays."""
    desk, position = _desk(properties), _position(place)
    entry, who = _entry(desk, position), by or getpass.getuser()
    request = msgspec.structs.replace(entry.request, id=f"{position}/{who}", by=who)
    try:
        again(request, desk.history, _corrector(desk))
    except (ImpossibleError, EarlyError) as error:
        raise FatalError(f"{place} cannot be corrected: {error}") from error
    Console().print(shown.story(_entry(desk, position)))


@app.command()
def reapply(properties: Properties, as_json: Json = False) -> None:
    """Put every recorded correction into its row once more: after a replay that stored the rows as they came."""
    desk = _desk(properties)
    with err.status("putting corrections back"):
        done = reapply_all(_entries(desk), _corrector(desk).again)
    if as_json:
        typer.echo(msgspec.json.encode(done).decode())
    else:
        err.print(shown.reapplied(done))
    raise typer.Exit(0 if done.complete else 1)


def _desk(properties: Path) -> _Desk:
    store = store_of(properties, None)
    table = table_of(store.settings.application, os.environ)
    return _Desk(store.settings, store.client, History(store.client("dynamodb"), table, _now_ms))


def _corrector(desk: _Desk) -> Corrector:
    return corrector_of(desk.settings, desk.client, load_registry(dry_run=False), desk.history, _now_ms)


def _entries(desk: _Desk) -> Iterator[Entry]:
    try:
        yield from desk.history.entries(desk.settings.application)
    except Exception as error:
        if code_of(error) != "ResourceNotFoundException":
            raise  # without a table nothing was ever corrected


def _entry(desk: _Desk, position: Position) -> Entry:
    found = desk.history.get(desk.settings.application, position)
    if found is None:
        raise ConfigError([Problem(f"nothing was asked for {position}", "see stream-app corrections ls")])
    return found


def _position(place: str) -> Position:
    shard, _, text = place.rpartition("/")
    try:
        if shard:
            return from_token(shard, text)
    except ValueError:
        pass
    raise ConfigError([Problem(f"{place!r} is no position", "write SHARD/SEQUENCE or SHARD/SEQUENCE.SUB")])


def _letters(desk: _Desk) -> int | None:
    """How many letters wait in the manual queue, by its name in the template; None without such a queue."""
    sqs = desk.client("sqs")
    try:
        url = sqs.get_queue_url(QueueName=f"{desk.settings.application}-manual")["QueueUrl"]
    except Exception as error:
        if code_of(error) in _NO_QUEUE:
            return None
        raise
    name = "ApproximateNumberOfMessages"
    return int(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
