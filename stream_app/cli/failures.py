"""`stream-app failures`: what failed, why, and how often."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from stream_app.cli.failures_options import (
    Codes,
    Consumer,
    EventName,
    Fingerprint,
    Hour,
    Json,
    Partition,
    Properties,
    Reason,
    Shard,
    Since,
    Statuses,
    Store,
    Stretch,
    Until,
    now,
    query_of,
    store_of,
    stretch_of,
)
from stream_app.cli.options import err
from stream_app.cli.views import failures as shown
from stream_app.cli.views.failures_story import show as show_story
from stream_app.errors import code_of
from stream_app.event_loading import load_registry
from stream_app.model.record import Position
from stream_app.recovery.bounded import plain
from stream_app.recovery.correct.history import Entry, History, table_of
from stream_app.recovery.find.query import Query, find
from stream_app.recovery.find.stats import stats as counted
from stream_app.recovery.hydrate.results import LetterRecord, get_record, letters, waiting, waiting_keys
from stream_app.recovery.redrive.ledger.claims import Ledger
from stream_app.recovery.redrive.ledger.items import Attempt
from stream_app.recovery.story import Archive, locate, row, story

T = TypeVar("T")
app = typer.Typer(no_args_is_help=True, help="Failures: find them, look at them, send them again.")

_THREADS = 32
_COUNTED = 1_000  # letters that wait are counted so far


@app.command()
def ls(
    properties: Properties,
    consumer: Consumer = None,
    since: Since = "24h",
    until: Until = None,
    hour: Hour = None,
    partition: Partition = None,
    shard: Shard = None,
    code: Codes = None,
    status: Statuses = None,
    event: EventName = None,
    reason: Reason = None,
    fingerprint: Fingerprint = None,
    limit: Annotated[int, typer.Option(help="How many.", min=1)] = 50,
    waits: Annotated[
        bool, typer.Option("--waiting", help="Instead the dead letters that are not hydrated yet.")
    ] = False,
    ranges: Annotated[
        bool,
        typer.Option("--letters", help="Instead the dead letters of pipes and functions, and their state."),
    ] = False,
    as_json: Json = False,
) -> None:
    """List failures, the latest first."""
    store = store_of(properties, consumer)
    stretch = stretch_of(since, until, hour)
    if waits or ranges:
        _letters(store, None if waits else stretch, limit, as_json=as_json)
        return
    query = query_of(store, stretch, partition, shard, code, status, event, reason, fingerprint)
    with ThreadPoolExecutor(_THREADS) as threads, shown.reading(err) as passing:
        unreadable: list[str] = []
        found = find(
            store.s3,
            store.bucket,
            query,
            threads,
            newest_first=True,
            unreadable=unreadable.append,
            ahead=min(limit + 1, 2 * _THREADS),
        )
        rows = [row(*one) for one in islice(passing(found), limit + 1)]
    rows, more = rows[:limit], len(rows) > limit
    waiting_now, first = _first_waiting(store)
    queued = _queued(store)
    if as_json:
        vanishes = None if first is None else first.vanishes
        letters = {"count": waiting_now, "first_vanishes": vanishes, "queued": queued}
        _print({"failures": rows, "more": more, "unreadable": unreadable, "waiting": letters})
        return
    console = Console()
    console.print(shown.listing(rows, more=more))
    _warn(unreadable)
    if first is not None:
        count = f"{waiting_now:,}" + ("" if waiting_now < _COUNTED else " or more")
        console.print(shown.waiting_line(count, first, now()))
    if queued:
        console.print(shown.queued_line(queued))


@app.command()
def stats(
    properties: Properties,
    consumer: Consumer = None,
    since: Since = "24h",
    until: Until = None,
    hour: Hour = None,
    partition: Partition = None,
    shard: Shard = None,
    code: Codes = None,
    status: Statuses = None,
    event: EventName = None,
    reason: Reason = None,
    fingerprint: Fingerprint = None,
    as_json: Json = False,
) -> None:
    """Count failures by time and code, and by cause: a thousand failures of one cause are one line."""
    store = store_of(properties, consumer)
    stretch = stretch_of(since, until, hour)
    query = query_of(store, stretch, partition, shard, code, status, event, reason, fingerprint)
    unreadable: list[str] = []
    with ThreadPoolExecutor(_THREADS) as threads, shown.reading(err) as passing:
        found = find(store.s3, store.bucket, query, threads, unreadable=unreadable.append)
        counts = counted(passing(found))
    if as_json:
        _print({**counts.to_json(), "unreadable": unreadable})
        return
    Console().print(shown.counts(counts))
    _warn(unreadable)


@app.command()
def show(
    properties: Properties,
    failure: Annotated[str, typer.Argument(help="Its id, its position, or its key on S3.")],
    consumer: Consumer = None,
    since: Since = "all",
    until: Until = None,
    hour: Hour = None,
    as_json: Json = False,
) -> None:
    """Tell a record's whole story: payload, failing rule, schema, dead letter, corrections, redrives."""
    store = store_of(properties, consumer)
    since_, until_ = stretch_of(since, until, hour)
    key = locate(store.s3, store.bucket, Query(store.consumer, since_, until_), failure)
    told = story(store.s3, store.bucket, key, load_registry(dry_run=False), _archive(store))
    if as_json:
        _print(told.to_json())
    else:
        Console().print(show_story(told))


def _letters(store: Store, stretch: Stretch | None, limit: int, *, as_json: bool) -> None:
    """Those of a stretch of time, or those that wait."""
    found = waiting(store.s3, store.bucket, store.consumer)
    if stretch is not None:
        found = letters(store.s3, store.bucket, store.consumer, *stretch)
    some: Sequence[LetterRecord] = list(islice(found, limit))
    if as_json:
        _print({"letters": [plain(one) for one in some]})
    else:
        Console().print(shown.letters(some, now(), waiting=stretch is None))


def _first_waiting(store: Store) -> tuple[int, LetterRecord | None]:
    """How many letters wait, counted up to a bound, and the first to vanish."""
    keys = list(islice(waiting_keys(store.s3, store.bucket, store.consumer), _COUNTED))
    return len(keys), get_record(store.s3, store.bucket, keys[0]) if keys else None


def _queued(store: Store) -> int | None:
    """About how many letters of all consumers are in the queue, which hydrate has not even looked at or tries again.

    None where nobody can know: no queue is set, or it may not be asked.
    """
    if not store.settings.dead_letter_queue:
        return None
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    try:
        answer = store.client("sqs").get_queue_attributes(
            QueueUrl=store.settings.dead_letter_queue, AttributeNames=names
        )
    except Exception:
        return None  # the list itself is what was asked for
    return sum(int(answer["Attributes"][name]) for name in names)


def _archive(store: Store) -> Archive:
    """The history table, by its name in the template unless the environment names another."""
    table = table_of(store.settings.application, os.environ)
    dynamodb = store.client("dynamodb")
    ledger = Ledger(dynamodb, table, "", lambda: time.time_ns() // 1_000_000)
    history = History(dynamodb, table, lambda: time.time_ns() // 1_000_000)

    def redrives(key: str) -> list[Attempt]:
        return _unless_missing(lambda: ledger.attempts(key), list[Attempt]())

    def correction(consumer: str, position: Position) -> Entry | None:
        return _unless_missing(lambda: history.get(consumer, position), None)

    return Archive(redrives, correction)


def _unless_missing(action: Callable[[], T], otherwise: T) -> T:
    try:
        return action()
    except Exception as error:
        if code_of(error) != "ResourceNotFoundException":
            raise
        return otherwise  # no such table: nothing was ever corrected or sent again


def _warn(unreadable: list[str]) -> None:
    for key in unreadable[:10]:
        err.print(f"cannot be read: {key}", markup=False, highlight=False)
    if len(unreadable) > 10:
        err.print(f"and {len(unreadable) - 10:,} more", highlight=False)


def _print(document: Mapping[str, Any]) -> None:
    typer.echo(json.dumps(document))
