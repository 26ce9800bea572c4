"""Serializes DynamoDB and S3 requests so that conditional writes are atomic.

On AWS, DynamoDB conditions and transactions and S3 conditional puts are atomic. moto checks and writes in two steps,
so with several request threads two workers could both win a lease or both create the same object. Reads are
serialized too because moto fails if a collection changes while it iterates over it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from moto.dynamodb.responses import DynamoHandler
from moto.s3.responses import S3Response

from stream_app.local.moto_patches.patch import replace

P = ParamSpec("P")
R = TypeVar("R")


def serialized(function: Callable[P, R], lock: threading.RLock) -> Callable[P, R]:
    """Wrap `function` so that only one thread at a time runs any function wrapped with the same lock."""

    @wraps(function)
    def locked(*args: P.args, **kwargs: P.kwargs) -> R:
        with lock:
            return function(*args, **kwargs)

    return locked


def apply() -> None:
    """Install the patch."""
    dynamodb, s3 = threading.RLock(), threading.RLock()
    replace(DynamoHandler, "call_action", serialized(DynamoHandler.call_action, dynamodb))
    replace(S3Response, "bucket_response", serialized(S3Response.bucket_response, s3))
    replace(S3Response, "key_response", serialized(S3Response.key_response, s3))
