"""Memory is released after startup and after records, at limited intervals."""

from __future__ import annotations

from typing import Any, cast

import pytest

from stream_app.consumer.memory_release import MemoryReleasing
from stream_app.errors import LeaseLostError


class Shard:
    """Notes what it is asked for."""

    def __init__(self, log: list[str]) -> None:
        self._log = log

    def initialize(self, shard: str, sequence: str | None, sub: int | None) -> None:
        self._log.append("initialize")

    def process(self, records: Any, behind_ms: int | None, checkpointer: Any) -> None:
        self._log.append(records[0] if records else "tick")
        if records == ["C"]:
            checkpointer.checkpoint("5", None)

    def lease_lost(self) -> None:
        self._log.append("lost")

    def shard_ended(self, checkpointer: Any) -> None:
        self._log.append("ended")

    def shutdown_requested(self, checkpointer: Any) -> None:
        self._log.append("shutdown")


class Committed:
    """Every checkpoint succeeds."""

    def checkpoint(self, sequence: str | None, sub: int | None) -> None:
        pass


class Clock:
    """Stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def worked() -> Clock:
    return Clock()


@pytest.fixture
def thrifty(log: list[str], clock: Clock, worked: Clock) -> MemoryReleasing:
    return MemoryReleasing(Shard(log), lambda: log.append("release"), clock, worked)


def play(thrifty: MemoryReleasing, clock: Clock, ticks: str, step: float, behind_ms: int = 0) -> None:
    """`r` for records, `C` for records with a commit, `.` for none; each so many seconds after the other."""
    records: Any
    for tick in ticks:
        records = [] if tick == "." else [tick]
        thrifty.process(records, behind_ms, Committed())
        clock.now += step


def test_every_action_is_forwarded(thrifty: MemoryReleasing, log: list[str]) -> None:
    thrifty.lease_lost()
    thrifty.shard_ended(Committed())
    thrifty.shutdown_requested(Committed())
    assert log == ["lost", "ended", "shutdown"]


def test_memory_is_released_before_the_first_record_and_when_records_stop(
    thrifty: MemoryReleasing, clock: Clock, log: list[str]
) -> None:
    thrifty.initialize("shard", None, None)
    play(thrifty, clock, "..r..", 0.2)
    assert log == ["initialize", "release", "tick", "tick", "r", "tick", "release", "tick"]


def test_sparse_records_release_memory_at_most_every_ten_seconds(
    thrifty: MemoryReleasing, clock: Clock, log: list[str]
) -> None:
    play(thrifty, clock, "r." * 100, 0.5)  # 100 seconds
    assert log.count("release") == 10


def test_continuous_records_release_memory_after_commits(
    thrifty: MemoryReleasing, clock: Clock, log: list[str]
) -> None:
    play(thrifty, clock, "rrCrrCrr", 6.0)
    assert log == [*"rrC", "release", *"rrC", "release", *"rr"]


def test_a_shard_far_behind_releases_memory_only_after_enough_processor_time(
    thrifty: MemoryReleasing, clock: Clock, worked: Clock, log: list[str]
) -> None:
    play(thrifty, clock, "rCr.", 100.0, behind_ms=60_000)
    assert "release" not in log
    worked.now += 5.0
    play(thrifty, clock, "rCrC", 100.0, behind_ms=60_000)
    assert log == ["r", "C", "r", "tick", "r", "C", "release", "r", "C"]


def test_a_shard_that_catches_up_releases_its_memory(
    thrifty: MemoryReleasing, clock: Clock, log: list[str]
) -> None:
    play(thrifty, clock, "rC", 1.0, behind_ms=60_000)
    play(thrifty, clock, "rC", 1.0)
    assert log == [*"rC", *"rC", "release"]


def test_a_refused_checkpoint_raises_in_the_shard(log: list[str], clock: Clock) -> None:
    class Refuses:
        def checkpoint(self, sequence: str | None, sub: int | None) -> None:
            raise LeaseLostError(f"{sequence} {sub}")

    thrifty = MemoryReleasing(Shard(log), lambda: log.append("release"), clock)
    with pytest.raises(LeaseLostError, match="5 None"):
        thrifty.process(cast("Any", ["C"]), 0, Refuses())


def test_an_idle_shard_does_not_release_memory(
    thrifty: MemoryReleasing, clock: Clock, log: list[str]
) -> None:
    play(thrifty, clock, "." * 100, 1.0)
    assert "release" not in log
