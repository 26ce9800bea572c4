"""Classification of errors by type and error code."""

from __future__ import annotations

from typing import Any

import pytest
from botocore import exceptions as aws

from stream_app.errors import (
    CONFLICT_CODES,
    TRANSIENT_CODES,
    ConfigError,
    FatalError,
    Problem,
    TransientError,
    aws_error_code,
    is_conflict,
    is_transient,
)


def refused(code: str, status: int = 400) -> aws.ClientError:
    said: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return aws.ClientError(said, "Call")


@pytest.mark.parametrize("code", sorted(TRANSIENT_CODES))
def test_throttling_and_unavailability_are_transient(code: str) -> None:
    assert is_transient(refused(code))
    assert aws_error_code(refused(code)) == code
    assert not is_conflict(refused(code))


@pytest.mark.parametrize("code", sorted(CONFLICT_CODES))
def test_a_conflict_is_not_transient(code: str) -> None:
    assert is_conflict(refused(code))
    assert not is_transient(refused(code))


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_any_5xx_response_is_transient(status: int) -> None:
    assert is_transient(refused("Unheard", status))


@pytest.mark.parametrize(
    "error",
    [
        TransientError("x"),
        aws.EndpointConnectionError(endpoint_url="x"),
        aws.ConnectTimeoutError(endpoint_url="x"),
        aws.ReadTimeoutError(endpoint_url="x"),
        aws.ConnectionClosedError(endpoint_url="x"),
        aws.HTTPClientError(error=OSError("x")),
    ],
)
def test_network_errors_are_transient(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        refused("AccessDenied", 403),
        refused("ValidationException"),
        refused("NoSuchBucket", 404),
        FatalError("x"),
        ValueError("ThrottlingException"),
        aws.NoCredentialsError(),
        aws.ParamValidationError(report="x"),
    ],
)
def test_any_other_error_is_not_retried(error: Exception) -> None:
    assert not is_transient(error)
    assert not is_conflict(error)


def test_errors_without_a_service_response_have_no_code() -> None:
    assert aws_error_code(ValueError("x")) is None
    odd = ValueError("x")
    odd.response = {"Error": {}}  # type: ignore[attr-defined]
    assert aws_error_code(odd) is None


def test_a_config_error_lists_every_problem_with_its_hint() -> None:
    problems = [Problem("a is wrong", "mend a"), Problem("b is wrong", "mend b")]
    error = ConfigError(problems)
    assert error.problems == tuple(problems)
    assert str(error) == "a is wrong (mend a); b is wrong (mend b)"
