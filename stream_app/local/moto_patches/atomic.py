"""One request at a time per service, where moto checks and writes in two steps.

DynamoDB's conditions and transactions and S3's conditional puts are atomic on AWS. In moto they are not once several
threads serve requests: two workers could both win a lease, or both create the same object. Reads are in it too,
because moto fails when what it iterates over changes.
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


def one_at_a_time(function: Callable[P, R], lock: threading.RLock) -> Callable[P, R]:
    """`function`, entered by one thread at a time; what shares the lock excludes each other."""

    @wraps(function)
    def locked(*args: P.args, **kwargs: P.kwargs) -> R:
        with lock:
            return function(*args, **kwargs)

    return locked


def apply() -> None:
    """Put the correction in place."""
    dynamodb, s3 = threading.RLock(), threading.RLock()
    replace(DynamoHandler, "call_action", one_at_a_time(DynamoHandler.call_action, dynamodb))
    replace(S3Response, "bucket_response", one_at_a_time(S3Response.bucket_response, s3))
    replace(S3Response, "key_response", one_at_a_time(S3Response.key_response, s3))
