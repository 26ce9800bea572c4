"""What the commands about failures are asked: options, and what they mean."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from stream_app import app as root
from stream_app.errors import ConfigError, Problem
from stream_app.recovery.find.query import Query
from stream_app.recovery.find.times import hour as whole_hour
from stream_app.recovery.find.times import moment
from stream_app.recovery.store import STATUSES
from stream_app.settings import Settings

Stretch = tuple[datetime | None, datetime | None]

Properties = Annotated[Path, typer.Option("--properties", help="The .properties file.", exists=True)]
Consumer = Annotated[
    str | None,
    typer.Option(help="Whose failures: a consumer, pipe or function. The application's by default."),
]
Since = Annotated[str, typer.Option(help="Arrived since: 90m, 24h, 7d, 2026-01-31T08, all.")]
Until = Annotated[str | None, typer.Option(help="Arrived before, written like --since.")]
Hour = Annotated[str | None, typer.Option(help="Arrived within that hour (UTC), instead of since and until.")]
Partition = Annotated[str | None, typer.Option(help="Partition key: the device.")]
Shard = Annotated[str | None, typer.Option(help="Shard id.")]
Codes = Annotated[list[str] | None, typer.Option("--code", help="Code; may be given several times.")]
Statuses = Annotated[
    list[str] | None, typer.Option("--status", help=f"{', '.join(STATUSES)}; may be given several times.")
]
EventName = Annotated[str | None, typer.Option("--event", help="Event type.")]
Reason = Annotated[str | None, typer.Option(help="Text in the reason, whatever the case.")]
Fingerprint = Annotated[str | None, typer.Option(help="Cause, as failures stats names it.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout; progress goes to stderr.")]


@dataclass(frozen=True, slots=True)
class Store:
    """One application's failure store, and whose failures are meant."""

    settings: Settings
    client: root.Client
    consumer: str

    @property
    def s3(self) -> Any:
        """The store's client."""
        return self.client("s3")

    @property
    def bucket(self) -> str:
        """The store's bucket."""
        return self.settings.bucket


def store_of(properties: Path, consumer: str | None) -> Store:
    """The store of the application that a file describes. Raises ConfigError."""
    settings = root.load_settings(os.environ, properties)
    if not settings.bucket:
        raise ConfigError([Problem("app.bucket is not set", "add app.bucket to the file")])
    client = root.clients(os.environ, settings.region, attempts=10)
    return Store(settings, client, consumer or settings.application)


def stretch_of(since: str, until: str | None, hour: str | None) -> Stretch:
    """From when to when. Raises ConfigError."""
    today = now()
    if hour is not None:
        return whole_hour(hour, today)
    begin, end = moment(since, today), moment(until, today) if until else None
    if begin is not None and end is not None and begin >= end:
        raise ConfigError([Problem(f"--until {until} is not after --since {since}", "turn them round")])
    return begin, end


def query_of(
    store: Store,
    stretch: Stretch,
    partition: str | None,
    shard: str | None,
    codes: list[str] | None,
    statuses: list[str] | None,
    event: str | None,
    reason: str | None,
    fingerprint: str | None,
) -> Query:
    """What is asked of the store. Raises ConfigError."""
    unknown = [name for name in statuses or () if name not in STATUSES]
    if unknown:
        hint = f"give one of {', '.join(STATUSES)}"
        raise ConfigError([Problem(f"--status {name} is none", hint) for name in unknown])
    return Query(
        store.consumer,
        *stretch,
        partition_key=partition,
        shard=shard,
        codes=frozenset(name.upper() for name in codes or ()),
        statuses=frozenset(statuses or ()),
        event=event,
        text=reason,
        fingerprint=fingerprint,
    )


def now() -> datetime:
    """The time, UTC."""
    return datetime.now(UTC)
