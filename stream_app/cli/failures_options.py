"""Options of the commands about failures, and the store and query that they select."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream_app import app as root
from stream_app.errors import ConfigError, Problem
from stream_app.recovery.find.query import Query
from stream_app.recovery.find.times import parse_hour, parse_time
from stream_app.recovery.store import STATUSES
from stream_app.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from stream_app.aws.clients import ClientFactory

Period = tuple[datetime | None, datetime | None]
"""Begin (inclusive) and end (exclusive) of arrival times; None for no bound."""

Consumer = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Consumer, pipe or function that failed; the application if not given."
    ),
]
Since = Annotated[
    str,
    typer.Option(metavar="TIME", help="Only failures since this time: 90m, 24h, 7d, 2026-01-31T08 or all."),
]
Until = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Only failures before this time, in the format of --since."),
]
Hour = Annotated[
    str | None,
    typer.Option(metavar="HOUR", help="Only failures of this hour (UTC); replaces --since and --until."),
]


@dataclass(frozen=True, slots=True)
class Filters:
    """Options that select failures."""

    since: Since = "24h"
    until: Until = None
    hour: Hour = None
    partition: Annotated[
        str | None, typer.Option(metavar="KEY", help="Only failures with this partition key (device).")
    ] = None
    shard: Annotated[str | None, typer.Option(metavar="SHARD", help="Only failures of this shard id.")] = None
    codes: Annotated[
        list[str] | None,
        typer.Option("--code", metavar="CODE", help="Only failures with this code; may be repeated."),
    ] = None
    statuses: Annotated[
        list[str] | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help=f"Only failures with this status ({', '.join(STATUSES)}); may be repeated.",
        ),
    ] = None
    event: Annotated[
        str | None, typer.Option("--event", metavar="NAME", help="Only failures of this event type.")
    ] = None
    reason: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Only failures whose reason contains this text, in any case."),
    ] = None
    fingerprint: Annotated[
        str | None,
        typer.Option(metavar="FINGERPRINT", help="Only failures of this cause, as shown by failures stats."),
    ] = None


@dataclass(frozen=True, slots=True)
class FailureStore:
    """The failure store of one application, and the consumer whose failures are selected."""

    settings: Settings
    client: ClientFactory
    consumer: str

    @property
    def s3(self) -> S3Client:
        """The S3 client of the store."""
        return self.client("s3")

    @property
    def bucket(self) -> str:
        """The bucket of the store."""
        return self.settings.bucket


def open_store(properties: Path, consumer: str | None) -> FailureStore:
    """Open the failure store of the application described by a properties file. Raises ConfigError."""
    settings = root.load_settings(os.environ, properties)
    if not settings.bucket:
        raise ConfigError([Problem("app.bucket is not set", "add app.bucket to the properties file")])
    client = root.clients(os.environ, settings.region, attempts=10)
    return FailureStore(settings, client, consumer or settings.application)


def parse_period(since: str, until: str | None, hour: str | None) -> Period:
    """Parse the time options. Raises ConfigError."""
    today = now()
    if hour is not None:
        return parse_hour(hour, today)
    begin, end = parse_time(since, today), parse_time(until, today) if until else None
    if begin is not None and end is not None and begin >= end:
        what = f"--until {until} is not after --since {since}"
        raise ConfigError([Problem(what, "exchange the two values")])
    return begin, end


def build_query(store: FailureStore, filters: Filters) -> Query:
    """Build the query for the failures that pass all filters. Raises ConfigError."""
    period = parse_period(filters.since, filters.until, filters.hour)
    unknown = [name for name in filters.statuses or () if name not in STATUSES]
    if unknown:
        hint = f"give one of {', '.join(STATUSES)}"
        raise ConfigError([Problem(f"unknown --status {name!r}", hint) for name in unknown])
    return Query(
        store.consumer,
        *period,
        partition_key=filters.partition,
        shard=filters.shard,
        codes=frozenset(name.upper() for name in filters.codes or ()),
        statuses=frozenset(filters.statuses or ()),
        event=filters.event,
        text=filters.reason,
        fingerprint=filters.fingerprint,
    )


def now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)
