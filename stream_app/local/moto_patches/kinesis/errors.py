"""The errors that Kinesis documents, as moto raises them: HTTP 400 with a code and a message."""

from __future__ import annotations

from moto.core.exceptions import JsonRESTError


def invalid_argument(message: str) -> JsonRESTError:
    """A parameter exceeds its restrictions, is not supported, or cannot be used."""
    return JsonRESTError("InvalidArgumentException", message)


def validation(where: str, constraint: str) -> JsonRESTError:
    """A parameter breaks a constraint of the API's model. The value itself is not repeated."""
    broken = f"Value at '{where}' failed to satisfy constraint: Member must {constraint}"
    message = f"1 validation error detected: {broken}"
    return JsonRESTError("ValidationException", message)


def no_shard(shard: str, stream: str, account: str) -> JsonRESTError:
    """The shard does not exist, or not in this life of the stream."""
    message = f"Shard {shard} in stream {stream} under account {account} does not exist"
    return JsonRESTError("ResourceNotFoundException", message)


def serialization(message: str) -> JsonRESTError:
    """The request's body is not what the API's model says."""
    return JsonRESTError("SerializationException", message)


def expired_iterator(created: int, now: int, tolerated: int) -> JsonRESTError:
    """The iterator is older than AWS lets it become. All three in ms."""
    message = (
        f"Iterator expired. The iterator was created at time {created} while right now it is {now} which is "
        f"further in the future than the tolerated delay of {tolerated} milliseconds."
    )
    return JsonRESTError("ExpiredIteratorException", message)


def expired_token() -> JsonRESTError:
    """A NextToken of ListShards is older than 300 s."""
    return JsonRESTError(
        "ExpiredNextTokenException", "The pagination token passed to the operation is expired."
    )


def throttled(shard: str, stream: str, account: str) -> JsonRESTError:
    """The request rate is too high for the shard."""
    return JsonRESTError("ProvisionedThroughputExceededException", rate_exceeded(shard, stream, account))


def rate_exceeded(shard: str, stream: str, account: str) -> str:
    """The message that AWS gives with a throttled call or entry."""
    return f"Rate exceeded for shard {shard} in stream {stream} under account {account}."
