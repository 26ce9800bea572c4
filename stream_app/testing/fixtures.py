"""Pytest fixtures: AWS in this process. The only module of the package that needs pytest and moto."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from stream_app.aws.clients import ClientFactory


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[ClientFactory]:
    """AWS in this process (moto, with Kinesis corrected): call it with a service's name for a boto3 client."""
    import boto3
    from moto import mock_aws

    from stream_app.local import moto_patches

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    moto_patches.apply()
    client: Callable[..., Any] = boto3.client
    with mock_aws():
        yield lambda service: client(service, region_name="us-east-1")


@pytest.fixture
def stream(aws: ClientFactory) -> str:
    """A stream of two shards; its name."""
    aws("kinesis").create_stream(StreamName="devices", ShardCount=2)
    return "devices"
