"""The context of a redrive: settings, clients and ledger of one application."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stream_app.aws.clients import ClientFactory
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

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# Concurrent requests to S3 and DynamoDB.
THREADS = 16


@dataclass(frozen=True, slots=True)
class RedriveContext:
    """Settings and clients for the redrive of one application.

    - `client` returns the boto3 client of a service; `sending` does so for the clients that send records, which must
      not retry by themselves: after a lost response, a retry would hide that the outcome is in doubt.
    - `history` is the history table, which contains the ledger.
    - `owner` identifies this applier in the ledger, `by` the person.
    - `failures_of` is the consumer whose failures are redriven, if it is a pipe or a function instead of the
      application.
    - `lease_ms` is the duration of a claim; `is_dead` tells whether an owner's process is known to have ended.

    Raises ConfigError if the bucket or the history table is not configured.
    """

    settings: Settings
    client: ClientFactory
    registry: Registry
    history: str
    now_ms: Callable[[], int]
    by: str = ""
    failures_of: str = ""
    owner: str = field(default_factory=new_owner)
    lease_ms: int = 30_000
    is_dead: Callable[[str], bool] = is_dead
    sending: ClientFactory | None = None

    def __post_init__(self) -> None:
        """Check that the bucket and the history table are configured."""
        required = {"app.bucket": self.settings.bucket, "the history table": self.history}
        problems = [
            Problem(f"{name} is not set", "set it: redrives need the failure store and the ledger")
            for name, value in required.items()
            if not value
        ]
        if problems:
            raise ConfigError(problems)

    @property
    def s3(self) -> S3Client:
        """The client of the failure store."""
        return self.client("s3")

    @property
    def bucket(self) -> str:
        """The bucket of the failure store."""
        return self.settings.bucket

    @property
    def consumer(self) -> str:
        """The consumer whose failures are redriven."""
        return self.failures_of or self.settings.application

    @property
    def ledger(self) -> Ledger:
        """The ledger, with this applier as the owner of new claims."""
        dynamodb = self.client("dynamodb")
        return Ledger(dynamodb, self.history, self.owner, self.now_ms, self.lease_ms, self.is_dead)

    @property
    def now(self) -> datetime:
        """The current time, UTC."""
        return utc_datetime(self.now_ms())


def open_target(context: RedriveContext, to: Destination, environ: Mapping[str, str] | None) -> Target:
    """Open the target of a plan and look up its secret. Raises ConfigError and boto3 errors.

    Without `environ` no secret is looked up; the target can then encode records but not send them.
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
