"""Errors are told apart by their type and their code, in one place."""

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
def test_what_is_throttled_or_unavailable_is_worth_another_try(code: str) -> None:
    assert is_transient(refused(code))
    assert aws_error_code(refused(code)) == code
    assert not is_conflict(refused(code))


@pytest.mark.parametrize("code", sorted(CONFLICT_CODES))
def test_a_conflict_is_no_passing_trouble(code: str) -> None:
    assert is_conflict(refused(code))
    assert not is_transient(refused(code))


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_whatever_the_service_says_with_5xx_may_pass(status: int) -> None:
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
def test_what_the_network_did_may_pass(error: Exception) -> None:
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
def test_anything_else_is_not_tried_again(error: Exception) -> None:
    assert not is_transient(error)
    assert not is_conflict(error)


def test_what_is_no_answer_of_a_service_has_no_code() -> None:
    assert aws_error_code(ValueError("x")) is None
    odd = ValueError("x")
    odd.response = {"Error": {}}  # type: ignore[attr-defined]
    assert aws_error_code(odd) is None


def test_a_configuration_error_has_every_problem_with_its_hint() -> None:
    problems = [Problem("a is wrong", "mend a"), Problem("b is wrong", "mend b")]
    error = ConfigError(problems)
    assert error.problems == tuple(problems)
    assert str(error) == "a is wrong (mend a); b is wrong (mend b)"
