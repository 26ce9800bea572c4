"""Retries: limited attempts, delays within full jitter, transient errors only."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st

from stream_app.aws.retry import Policy, call, retrying
from stream_app.errors import FatalError, LeaseLostError, TransientError
from stream_app.model.record import Failure
from stream_app.model.segment import Segment
from tests.unit.test_sink_segment import segment

UNAVAILABLE: Any = {"Error": {"Code": "?"}, "ResponseMetadata": {"HTTPStatusCode": 503}}
TRANSIENT: list[Exception] = [
    TransientError("later"),
    ClientError({"Error": {"Code": "SlowDown"}}, "PutObject"),
    ClientError(UNAVAILABLE, "PutObject"),
    EndpointConnectionError(endpoint_url="x"),
]
LASTING: list[Exception] = [
    LeaseLostError("gone"),
    FatalError("over"),
    ClientError({"Error": {"Code": "AccessDenied"}}, "PutObject"),
    ValueError("a bug"),
]
POLICIES = st.builds(Policy, st.integers(1, 60), st.integers(0, 1000), st.integers(0, 20_000))


def failing(times: int, error: Exception) -> tuple[Callable[[], str], list[int]]:
    tried: list[int] = []

    def action() -> str:
        tried.append(len(tried))
        if len(tried) <= times:
            raise error
        return "done"

    return action, tried


@given(POLICIES, st.integers(0, 70), st.sampled_from(TRANSIENT), st.integers())
def test_a_write_is_retried_until_it_succeeds_or_attempts_are_exhausted(
    policy: Policy, failures: int, error: Exception, seed: int
) -> None:
    action, tried = failing(failures, error)
    pauses: list[float] = []
    run = partial(call, action, policy, sleep=pauses.append, rng=random.Random(seed), what="it")
    if failures < policy.attempts:
        assert run() == "done"
    else:
        with pytest.raises(FatalError, match="it: gave up") as raised:
            run()
        assert raised.value.__cause__ is error
    assert len(tried) == min(failures + 1, policy.attempts)
    assert len(pauses) == len(tried) - 1
    for attempt, pause in enumerate(pauses):
        assert 0 <= pause * 1000 <= min(policy.cap_ms, policy.base_ms * 2**attempt) + 1e-9


@pytest.mark.parametrize("error", LASTING, ids=lambda error: type(error).__name__)
def test_a_permanent_error_is_raised_at_once(error: Exception) -> None:
    action, tried = failing(1, error)
    with pytest.raises(type(error)) as raised:
        call(action, Policy(), sleep=_no_sleep, rng=random.Random(1), what="it")
    assert raised.value is error
    assert len(tried) == 1


def test_delays_use_the_full_jitter_range() -> None:
    rng = random.Random(7)
    pauses = [Policy(base_ms=100, cap_ms=800).pause(9, rng) for _ in range(2000)]
    assert min(pauses) < 0.02
    assert max(pauses) > 0.78


def test_a_sink_is_wrapped_and_closed() -> None:
    class Sink:
        def __init__(self) -> None:
            self.log: list[str] = []

        def write(self, one: Segment) -> Sequence[Failure]:
            self.log.append(one.name)
            if len(self.log) < 3:
                raise TransientError("later")
            return one.failed

        def close(self) -> None:
            self.log.append("closed")

    inner, one = Sink(), segment(["failed", "air_quality"])
    sink = retrying(inner, Policy(), sleep=lambda _: None, rng=random.Random(1))
    assert sink.write(one) == one.failed
    sink.close()
    assert inner.log == [one.name] * 3 + ["closed"]


def _no_sleep(_: float) -> None:
    raise AssertionError("nothing to wait for")
