"""The initial position of a new consumer: a timestamp, which takes effect only without existing leases."""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from stream_app.errors import ConfigError, Problem, aws_error_code

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


def parse_timestamp(text: str, now: float) -> int:
    """Parse an ISO 8601 time with a zone to whole seconds since the epoch, rounded down.

    Raises ConfigError if it is invalid, has no zone, or is after `now` (seconds since the epoch).
    """
    hint = "give an ISO 8601 time with a zone, such as 2016-12-01T00:00:00Z"
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise ConfigError([Problem(f"{text!r} is not a timestamp", hint)]) from error
    if moment.tzinfo is None:
        raise ConfigError([Problem(f"{text!r} has no time zone", hint)])
    seconds = math.floor(moment.timestamp())
    if not 0 < seconds <= now:
        raise ConfigError([Problem(f"{text!r} is not in the past", "give a time in the past")])
    return seconds


def starting_at(seconds: int) -> dict[str, str | None]:
    """Return the properties with which a consumer without leases starts at `seconds` since the epoch."""
    return {"initialPositionInStreamExtended": str(seconds), "initialPositionInStream": None}


def require_no_leases(dynamodb: DynamoDBClient, application: str) -> None:
    """Raise ConfigError if the application has leases: KCL would continue from their checkpoints."""
    try:
        page = dynamodb.scan(TableName=application, Limit=1, ConsistentRead=True)
    except ClientError as error:
        if aws_error_code(error) == "ResourceNotFoundException":
            return
        raise
    if page["Items"]:
        what = f"the lease table {application} has leases, so an initial position would be ignored"
        hint = "choose a new applicationName, or stop all workers and reset the leases"
        raise ConfigError([Problem(what, hint)])
