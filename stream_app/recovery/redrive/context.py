"""The redrive's world: what a plan, its application and what follows need to know of one application."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from stream_app.errors import ConfigError, Problem
from stream_app.model.segment import utc_datetime
from stream_app.pipeline.registry import Registry
from stream_app.recovery.redrive.ledger.claims import Ledger
from stream_app.recovery.redrive.ledger.owner import is_dead, new_owner
from stream_app.recovery.redrive.targets.auth import secret_of
from stream_app.recovery.redrive.targets.aws import BusTarget, StreamTarget
from stream_app.recovery.redrive.targets.http import HttpTarget
from stream_app.recovery.redrive.targets.target import Destination, Target
from stream_app.settings import Settings

# Requests that go side by side.
THREADS = 16


@dataclass(frozen=True, slots=True)
class RedriveContext:
    """Where things are, for one application. `client` makes boto3 clients, one a service.

    `history` is the history table, which keeps the ledger. `owner` names this applier in it, `by` the person.
    `failures_of` is whose failures are meant, when they are not the application's own but a pipe's or a function's.
    `sending` makes the clients that records are sent by: a call whose answer is lost must not be tried again by
    itself, since nobody would know of the doubt.
    """

    settings: Settings
    client: Callable[[str], Any]
    registry: Registry
    history: str
    now_ms: Callable[[], int]
    by: str = ""
    failures_of: str = ""
    owner: str = field(default_factory=new_owner)
    lease_ms: int = 30_000
    is_dead: Callable[[str], bool] = is_dead
    sending: Callable[[str], Any] | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError when a place is not named."""
        missing = {"app.bucket": self.settings.bucket, "the history table": self.history}
        problems = [
            Problem(f"{name} is not set", "set it: the failure store and the ledger are needed")
            for name, value in missing.items()
            if not value
        ]
        if problems:
            raise ConfigError(problems)

    @property
    def s3(self) -> Any:
        """The failure store's client."""
        return self.client("s3")

    @property
    def bucket(self) -> str:
        """The failure store's bucket."""
        return self.settings.bucket

    @property
    def consumer(self) -> str:
        """Whose failures they are."""
        return self.failures_of or self.settings.application

    @property
    def ledger(self) -> Ledger:
        """The ledger, as this applier writes it."""
        dynamodb = self.client("dynamodb")
        return Ledger(dynamodb, self.history, self.owner, self.now_ms, self.lease_ms, self.is_dead)

    @property
    def now(self) -> datetime:
        """The time, UTC."""
        return utc_datetime(self.now_ms())


def open_target(context: RedriveContext, to: Destination, environ: Mapping[str, str] | None) -> Target:
    """The target of a plan; its secret is looked up now, unless there is no `environ`: then it cannot send.

    Raises ConfigError, and what boto3 raises.
    """
    sending = context.sending or context.client
    if to.kind == "bus":
        return BusTarget(sending("events"), to.name, context.registry)
    if to.kind == "stream":
        region = context.settings.region
        return StreamTarget(sending("kinesis"), to.name, context.registry, region, lambda: context.now)
    headers = {}
    if to.auth is not None and environ is not None:
        headers[to.auth.header] = secret_of(to.auth, environ, context.client)
    return HttpTarget(to.name, headers, now=lambda: datetime.now(UTC))
