"""Where a new consumer begins: at a timestamp, provided that it has no leases, whose checkpoints would win."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any, Protocol

from botocore.exceptions import ClientError

from stream_app.errors import ConfigError, Problem, aws_error_code


class Scanner(Protocol):
    """What is needed of a DynamoDB client."""

    def scan(self, *, TableName: str, Limit: int, ConsistentRead: bool) -> Any:
        """A page of a table's items."""
        ...


def parse_timestamp(text: str, now: float) -> int:
    """Seconds since the epoch of an ISO-8601 time with a zone; a part of a second is rounded down.

    Raises ConfigError when it is not one, has no zone, or lies after `now` (seconds since the epoch).
    """
    hint = "give ISO-8601 with a zone, as 2016-12-01T00:00:00Z"
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise ConfigError([Problem(f"{text!r} is not a timestamp", hint)]) from error
    if moment.tzinfo is None:
        raise ConfigError([Problem(f"{text!r} has no time zone", hint)])
    seconds = math.floor(moment.timestamp())
    if not 0 < seconds <= now:
        raise ConfigError([Problem(f"{text!r} is not in the past", "give a time that records arrived after")])
    return seconds


def starting_at(seconds: int) -> dict[str, str | None]:
    """The overrides that make a consumer without leases begin at `seconds` since the epoch."""
    return {"initialPositionInStreamExtended": str(seconds), "initialPositionInStream": None}


def refuse_leases(dynamodb: Scanner, application: str) -> None:
    """Raises ConfigError when the application has leases: KCL would go on from their checkpoints, unasked."""
    try:
        page = dynamodb.scan(TableName=application, Limit=1, ConsistentRead=True)
    except ClientError as error:
        if aws_error_code(error) == "ResourceNotFoundException":
            return
        raise
    if page["Items"]:
        what = f"the lease table {application} has leases, so a starting point would be ignored"
        hint = "choose a new applicationName, or stop the whole fleet and reset the leases"
        raise ConfigError([Problem(what, hint)])
