"""`stream-app failures`: list, count and inspect failed records."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Annotated, TypeVar

import typer
from rich.console import Console

from stream_app.cli.failures_options import (
    Consumer,
    FailureStore,
    Filters,
    Hour,
    Period,
    Since,
    Until,
    build_query,
    now,
    open_store,
    parse_period,
)
from stream_app.cli.flatten import flatten_options
from stream_app.cli.options import Json, Properties, err
from stream_app.cli.views import failures as view
from stream_app.cli.views.failure_history import show as show_history
from stream_app.errors import aws_error_code
from stream_app.event_loading import load_registry
from stream_app.model.record import Position
from stream_app.recovery.bounded import to_plain
from stream_app.recovery.correct.history import History, history_table
from stream_app.recovery.correct.history_entry import Entry
from stream_app.recovery.failure_details import HistorySource, failure_row, find_failure, load_details
from stream_app.recovery.find.query import Query, find
from stream_app.recovery.find.stats import stats as compute_stats
from stream_app.recovery.hydrate.results import (
    DeadLetterRecord,
    dead_letter_records,
    get_record,
    waiting,
    waiting_keys,
)
from stream_app.recovery.redrive.ledger.claims import Ledger
from stream_app.recovery.redrive.ledger.items import Attempt

T = TypeVar("T")
app = typer.Typer(no_args_is_help=True, help="Find, inspect, redrive and discard failed records.")

_THREADS = 32
_MAX_COUNTED = 1_000  # dead letters that wait for hydration are counted up to this number


@app.command()
@flatten_options
def ls(
    properties: Properties,
    filters: Filters,
    consumer: Consumer = None,
    limit: Annotated[int, typer.Option(metavar="COUNT", help="Maximum number of rows.", min=1)] = 50,
    waiting_only: Annotated[
        bool, typer.Option("--waiting", help="List the dead letters that are not hydrated yet instead.")
    ] = False,
    ranges: Annotated[
        bool,
        typer.Option(
            "--dead-letters", help="List the dead letters of pipes and functions with their state instead."
        ),
    ] = False,
    letters: Annotated[
        bool, typer.Option("--letters", hidden=True, help="Former name of --dead-letters.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List failures, newest first."""
    store = open_store(properties, consumer)
    if waiting_only or ranges or letters:
        period = parse_period(filters.since, filters.until, filters.hour)
        _list_dead_letters(store, None if waiting_only else period, limit, as_json=as_json)
        return
    query = build_query(store, filters)
    with ThreadPoolExecutor(_THREADS) as threads, view.counting(err) as counted:
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
        rows = [failure_row(*failure) for failure in islice(counted(found), limit + 1)]
    rows, more = rows[:limit], len(rows) > limit
    waiting_count, first = _first_waiting(store)
    queued = _queued(store)
    if as_json:
        vanishes = None if first is None else first.deadline
        dead_letters = {"count": waiting_count, "first_vanishes": vanishes, "queued": queued}
        _print({"failures": rows, "more": more, "unreadable": unreadable, "waiting": dead_letters})
        return
    console = Console()
    console.print(view.listing(rows, more=more))
    _warn(unreadable)
    if first is not None:
        count = f"{waiting_count:,}" + ("" if waiting_count < _MAX_COUNTED else " or more")
        console.print(view.waiting_line(count, first, now()))
    if queued:
        console.print(view.queued_line(queued))


@app.command()
@flatten_options
def stats(properties: Properties, filters: Filters, consumer: Consumer = None, as_json: Json = False) -> None:
    """Count failures by time and code, and by cause."""
    store = open_store(properties, consumer)
    query = build_query(store, filters)
    unreadable: list[str] = []
    with ThreadPoolExecutor(_THREADS) as threads, view.counting(err) as counted:
        found = find(store.s3, store.bucket, query, threads, unreadable=unreadable.append)
        counts = compute_stats(counted(found))
    if as_json:
        _print({**counts.to_json(), "unreadable": unreadable})
        return
    Console().print(view.counts(counts))
    _warn(unreadable)


@app.command()
def show(
    properties: Properties,
    failure: Annotated[str, typer.Argument(metavar="FAILURE", help="Id, position or S3 key of the failure.")],
    consumer: Consumer = None,
    since: Since = "all",
    until: Until = None,
    hour: Hour = None,
    as_json: Json = False,
) -> None:
    """Show the full history of a failure: payload, reason, schema, dead letter, corrections, redrives."""
    store = open_store(properties, consumer)
    begin, end = parse_period(since, until, hour)
    key = find_failure(store.s3, store.bucket, Query(store.consumer, begin, end), failure)
    history = load_details(store.s3, store.bucket, key, load_registry(dry_run=False), _archive(store))
    if as_json:
        _print(history.to_json())
    else:
        Console().print(show_history(history))


def _list_dead_letters(store: FailureStore, period: Period | None, limit: int, *, as_json: bool) -> None:
    """Print the dead letters of a period, or with None those that wait for hydration."""
    found = waiting(store.s3, store.bucket, store.consumer)
    if period is not None:
        found = dead_letter_records(store.s3, store.bucket, store.consumer, *period)
    dead_letters: Sequence[DeadLetterRecord] = list(islice(found, limit))
    if as_json:
        _print({"letters": [to_plain(dead_letter) for dead_letter in dead_letters]})
    else:
        Console().print(view.dead_letters(dead_letters, now(), waiting=period is None))


def _first_waiting(store: FailureStore) -> tuple[int, DeadLetterRecord | None]:
    """Return how many dead letters wait (counted up to a limit) and the one whose payload expires first."""
    keys = list(islice(waiting_keys(store.s3, store.bucket, store.consumer), _MAX_COUNTED))
    return len(keys), get_record(store.s3, store.bucket, keys[0]) if keys else None


def _queued(store: FailureStore) -> int | None:
    """Return the approximate number of messages in the dead-letter queue, of all consumers.

    None if no queue is configured or its attributes cannot be read.
    """
    if not store.settings.dead_letter_queue:
        return None
    try:
        answer = store.client("sqs").get_queue_attributes(
            QueueUrl=store.settings.dead_letter_queue,
            AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
        )
    except Exception:
        return None  # the number is an addition to the list, which must not fail for it
    attributes = answer["Attributes"]
    visible = int(attributes["ApproximateNumberOfMessages"])
    return visible + int(attributes["ApproximateNumberOfMessagesNotVisible"])


def _archive(store: FailureStore) -> HistorySource:
    """Open the history table, named as in the template unless the environment overrides it."""
    table = history_table(store.settings.application, os.environ)
    dynamodb = store.client("dynamodb")
    ledger = Ledger(dynamodb, table, "", lambda: time.time_ns() // 1_000_000)
    history = History(dynamodb, table, lambda: time.time_ns() // 1_000_000)

    def redrives(key: str) -> list[Attempt]:
        return _unless_missing(lambda: ledger.attempts(key), list[Attempt]())

    def correction(consumer: str, position: Position) -> Entry | None:
        return _unless_missing(lambda: history.get(consumer, position), None)

    return HistorySource(redrives, correction)


def _unless_missing(action: Callable[[], T], default: T) -> T:
    try:
        return action()
    except Exception as error:
        if aws_error_code(error) != "ResourceNotFoundException":
            raise
        return default  # without the table, nothing was ever corrected or redriven


def _warn(unreadable: list[str]) -> None:
    for key in unreadable[:10]:
        err.print(f"cannot read {key}", markup=False, highlight=False)
    if len(unreadable) > 10:
        err.print(f"and {len(unreadable) - 10:,} more", highlight=False)


def _print(document: Mapping[str, object]) -> None:
    typer.echo(json.dumps(document))
