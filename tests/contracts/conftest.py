"""What most tests against moto begin with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.contracts.hydrating import BUCKET


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
