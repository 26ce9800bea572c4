"""Entry points of the Lambda functions in infra/; the local function runner calls the same ones."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from stream_app.app import Client, clients
from stream_app.errors import ConfigError, Problem
from stream_app.recovery.hydrate import hydrate_batch


@cache
def _client() -> Client:
    """Made once, while the function stays warm."""
    return clients(os.environ)


def hydrate(event: Mapping[str, Any], _context: Any) -> dict[str, list[dict[str, str]]]:
    """Dead letters of one SQS event become full payloads on S3; see `recovery.hydrate`."""
    bucket = os.environ.get("STREAM_APP_BUCKET")
    if not bucket:
        raise ConfigError([Problem("STREAM_APP_BUCKET is not set", "set it to the failure store's bucket")])
    client = _client()
    return hydrate_batch(event, kinesis=client("kinesis"), s3=client("s3"), bucket=bucket)
