"""The world fails by exception; bad data fails by value (`record.Failure`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

CONFIG_ERROR = 2
"""The exit code of a record processor, and then of the launcher, whose configuration is wrong."""


class StreamAppError(Exception):
    """Base of all errors that this application raises on purpose."""


class Problem(NamedTuple):
    """One thing that is wrong with the configuration, and what to do about it."""

    what: str
    hint: str


class ConfigError(StreamAppError):
    """The configuration is wrong: every problem at once, each with a hint. Exit code 2."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{p.what} ({p.hint})" for p in self.problems))


class TransientError(StreamAppError):
    """Throttled or unavailable: worth another try, in place."""


class FatalError(StreamAppError):
    """Going on would lose a record: leave without a checkpoint. Exit code 1."""


class LeaseLostError(StreamAppError):
    """Another worker owns the shard now: stop quietly, never commit."""


# One table for all services. Codes of boto3's ClientError that are worth another try.
TRANSIENT_CODES = frozenset(
    {
        "InternalError",
        "InternalFailure",
        "InternalServerError",
        "KMSThrottlingException",
        "LimitExceededException",
        "OperationAborted",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)

# A conditional write found that the world is not as it assumed.
CONFLICT_CODES = frozenset(
    {"PreconditionFailed", "ConditionalRequestConflict", "ConditionalCheckFailedException", "412", "409"}
)


def aws_error_code(error: BaseException) -> str | None:
    """The service's error code of a boto3 ClientError, else None."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return None
    code = response.get("Error", {}).get("Code")
    return str(code) if code is not None else None


def is_transient(error: BaseException) -> bool:
    """Whether another try may succeed: throttling, 5xx, and what the network did."""
    from botocore import exceptions as aws

    if isinstance(error, TransientError):
        return True
    if isinstance(
        error,
        aws.ConnectionError
        | aws.HTTPClientError
        | aws.ConnectionClosedError
        | aws.ReadTimeoutError
        | aws.EndpointConnectionError,
    ):
        return True
    if aws_error_code(error) in TRANSIENT_CODES:
        return True
    response = getattr(error, "response", None)
    status = (
        response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) if isinstance(response, dict) else 0
    )
    return bool(status >= 500)


def is_conflict(error: BaseException) -> bool:
    """Whether a conditional write was refused."""
    return aws_error_code(error) in CONFLICT_CODES


def explain(error: BaseException) -> Problem | None:
    """What AWS or the network refused, for people; None for any other error."""
    from botocore import exceptions as aws

    if isinstance(error, aws.NoCredentialsError | aws.PartialCredentialsError | aws.NoRegionError):
        return Problem(str(error), "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and the like, as for the AWS CLI")
    if isinstance(error, aws.ClientError):
        hint = _HINTS.get(
            str(aws_error_code(error)), "check the names in the properties file, and the permissions"
        )
        return Problem(str(error), hint)
    if isinstance(error, aws.BotoCoreError):
        return Problem(str(error), "check AWS_ENDPOINT_URL, the region and the network")
    return None


_HINTS = {
    "ResourceNotFoundException": "is the stream or table there? check streamName, regionName and the tables",
    "NoSuchBucket": "is the bucket there? check app.bucket",
    "AccessDeniedException": "the role lacks a permission: see the consumer's policy in infra/",
    "AccessDenied": "the role lacks a permission: see the consumer's policy in infra/",
    "ExpiredTokenException": "log in again",
}
