"""Fixtures for tests against moto."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from stream_app.local.deployers.deploy import deploy, templates
from tests.contracts import redriving
from tests.contracts.hydrating import BUCKET
from tests.contracts.redriving_pipeline import Pipeline


@pytest.fixture
def s3(aws: Callable[[str], Any], request: pytest.FixtureRequest) -> Any:
    """S3, with a bucket: of the module's name for it, where it has one."""
    client = aws("s3")
    client.create_bucket(Bucket=getattr(request.module, "BUCKET", BUCKET))
    return client


@pytest.fixture
def kinesis(aws: Callable[[str], Any], stream: str) -> Any:
    """Kinesis, with the stream `devices`."""
    assert stream == "devices"
    return aws("kinesis")


@pytest.fixture
def clients(aws: Callable[[str], Any]) -> Callable[[str], Any]:
    """A client factory that creates each client once."""
    return cache(aws)


@pytest.fixture
def outputs(clients: Callable[[str], Any], request: pytest.FixtureRequest) -> dict[str, str]:
    """The outputs of our templates, deployed: with as many shards as the module says, where it does."""
    return deploy(templates(), clients, shards=getattr(request.module, "SHARDS", 2))


@pytest.fixture
def client(aws: Callable[[str], Any]) -> Callable[[str], Any]:
    """Clients of an application that has its bucket and tables, as redrives need them."""
    redriving.make_tables(aws)
    return aws


@pytest.fixture
def pipeline(aws: Callable[[str], Any], stream: str) -> Pipeline:
    """A whole pipeline, around the stream `devices`."""
    assert stream == redriving.STREAM
    return Pipeline(aws)
