"""Quarantine on S3: new attempts replace old ones, the first decision is kept."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stream_app.errors import FatalError
from stream_app.model.record import Code, Failure
from stream_app.sinks.quarantine import Attempts, Decision, S3QuarantineStore, decision_key

BUCKET = "quarantine-of-the-test"
SHARD = "shardId-000000000007"


@pytest.fixture
def store(s3: Any) -> S3QuarantineStore:
    return S3QuarantineStore(s3, BUCKET, "app")


def decision(sequence: int, sub: int = 0, **values: Any) -> Decision:
    known: dict[str, Any] = {
        "consumer": "app",
        "shard": SHARD,
        "arrived": 1,
        "decided": 2,
        "code": "TIMED_OUT",
    }
    known |= {"stage": "calculate", "reason": "too long", "event": "reading", "schema": "5c", **values}
    return Decision(sequence=str(sequence), sub=sub, **known)


def test_the_last_saved_attempts_are_loaded(store: S3QuarantineStore) -> None:
    assert store.attempts(SHARD) is None
    for number in (1, 2):
        attempts = Attempts(checkpoint="7.1", attempts=number, careful_until=5)
        store.save_attempts(SHARD, attempts)
        assert store.attempts(SHARD) == attempts
    assert store.attempts("shardId-000000000008") is None


def test_unreadable_attempts_count_as_none(store: S3QuarantineStore, s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key=f"quarantine/app/{SHARD}/attempts.json", Body=b"{")
    assert store.attempts(SHARD) is None


def test_decisions_are_ordered_by_position_and_the_first_one_wins(
    store: S3QuarantineStore,
) -> None:
    assert store.decisions(SHARD) == []
    for one in (decision(12, 10), decision(9), decision(12, 2), decision(100)):
        assert store.decide(one) == one
    again = decision(9, reason="another", code="PROCESS_KILLED")
    assert store.decide(again).reason == "too long"
    found = store.decisions(SHARD)
    assert [(one.sequence, one.sub) for one in found] == [("9", 0), ("12", 2), ("12", 10), ("100", 0)]
    assert found[0].failure(3) == Failure(3, "calculate", Code.TIMED_OUT, "too long", "reading", "5c")
    assert list(store.shards()) == [SHARD]


def test_a_decision_can_be_deleted(store: S3QuarantineStore) -> None:
    store.decide(decision(9))
    assert store.forget(decision(9).position)
    assert not store.forget(decision(9).position)
    assert store.decisions(SHARD) == []


@pytest.mark.parametrize("body", [b"{", msgspec.json.encode(decision(9, code="NO_SUCH_CODE"))])
def test_an_unreadable_decision_is_an_error(store: S3QuarantineStore, s3: Any, body: bytes) -> None:
    s3.put_object(Bucket=BUCKET, Key=decision_key("app", decision(9).position), Body=body)
    with pytest.raises(FatalError, match="not a quarantine decision"):
        store.decisions(SHARD)
