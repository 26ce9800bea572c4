"""Error classes: failures of the environment are exceptions, invalid records are values (`record.Failure`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

CONFIG_ERROR = 2
"""The exit code of the record processor and of the launcher if the configuration is wrong."""


class StreamAppError(Exception):
    """The base class of all errors of this application."""


class Problem(NamedTuple):
    """A problem of the configuration, and a hint how to solve it."""

    what: str
    hint: str


class ConfigError(StreamAppError):
    """The configuration is invalid; reports all problems at once, each with a hint. Exit code 2."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{p.what} ({p.hint})" for p in self.problems))


class TransientError(StreamAppError):
    """A retriable error, such as throttling or unavailability; the caller retries with backoff."""


class FatalError(StreamAppError):
    """Continuing could lose a record: stop without a checkpoint. Exit code 1."""


class LeaseLostError(StreamAppError):
    """Another worker owns the shard's lease now: stop without an error, and do not checkpoint."""


# Retriable error codes of boto3's ClientError, for all services.
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

# Error codes of a conditional write whose condition was not met.
CONFLICT_CODES = frozenset(
    {"PreconditionFailed", "ConditionalRequestConflict", "ConditionalCheckFailedException", "412", "409"}
)


def aws_error_code(error: BaseException) -> str | None:
    """Return the error code of a boto3 ClientError, or None for other errors."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return None
    code = response.get("Error", {}).get("Code")
    return str(code) if code is not None else None


def is_transient(error: BaseException) -> bool:
    """Return whether an error is retriable: throttling, 5xx responses and network errors."""
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
    """Return whether the condition of a conditional write was not met."""
    return aws_error_code(error) in CONFLICT_CODES


def explain(error: BaseException) -> Problem | None:
    """Return a readable problem and hint for an AWS or network error, None for other errors."""
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
    "ResourceNotFoundException": "check that the stream or table exists: streamName, regionName and the tables",
    "NoSuchBucket": "check that the bucket app.bucket exists",
    "AccessDeniedException": "the role lacks a permission: see the consumer's policy in infra/",
    "AccessDenied": "the role lacks a permission: see the consumer's policy in infra/",
    "ExpiredTokenException": "log in again: the credentials have expired",
}
