"""Errors of the Kinesis API as moto exceptions: HTTP 400 with a code and a message."""

from __future__ import annotations

from moto.core.exceptions import JsonRESTError


def invalid_argument(message: str) -> JsonRESTError:
    """InvalidArgumentException: a parameter exceeds its limits, is not supported, or cannot be used."""
    return JsonRESTError("InvalidArgumentException", message)


def validation(path: str, constraint: str) -> JsonRESTError:
    """ValidationException: a parameter violates a constraint of the API model. The message omits the value."""
    broken = f"Value at '{path}' failed to satisfy constraint: Member must {constraint}"
    message = f"1 validation error detected: {broken}"
    return JsonRESTError("ValidationException", message)


def shard_not_found(shard: str, stream: str, account: str) -> JsonRESTError:
    """ResourceNotFoundException: the shard does not exist, or the stream was deleted and recreated."""
    message = f"Shard {shard} in stream {stream} under account {account} does not exist"
    return JsonRESTError("ResourceNotFoundException", message)


def serialization(message: str) -> JsonRESTError:
    """SerializationException: the request body does not match the API model."""
    return JsonRESTError("SerializationException", message)


def expired_iterator(created: int, now: int, tolerated: int) -> JsonRESTError:
    """ExpiredIteratorException: the iterator is older than its lifetime. All arguments are in milliseconds."""
    message = (
        f"Iterator expired. The iterator was created at time {created} while right now it is {now} which is "
        f"further in the future than the tolerated delay of {tolerated} milliseconds."
    )
    return JsonRESTError("ExpiredIteratorException", message)


def expired_token() -> JsonRESTError:
    """ExpiredNextTokenException: a NextToken of ListShards is older than 300 s."""
    return JsonRESTError(
        "ExpiredNextTokenException", "The pagination token passed to the operation is expired."
    )


def throttled(shard: str, stream: str, account: str) -> JsonRESTError:
    """ProvisionedThroughputExceededException: the request rate is too high for the shard."""
    return JsonRESTError("ProvisionedThroughputExceededException", rate_exceeded(shard, stream, account))


def rate_exceeded(shard: str, stream: str, account: str) -> str:
    """Return the message that AWS sends for a throttled call or entry."""
    return f"Rate exceeded for shard {shard} in stream {stream} under account {account}."
