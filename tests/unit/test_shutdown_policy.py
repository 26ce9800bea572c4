"""When a daemon is killed: not while a shard may still finish, and not after the timeout."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.daemon.shutdown_policy import Action, Patience, ShutdownPolicy

SHARDS = ["a", "b", "c"]
PATIENCE = Patience(stop=100, leave=10, crash=20)
EVENTS = st.sampled_from(
    [
        "shard_initialized",
        "shard_ended",
        "lease_lost",
        "shard_stopping",
        "child_silent",
        "child_failed",
        "child_exited",
        "kcl",
    ]
)
STORY = st.lists(st.tuples(EVENTS, st.sampled_from(SHARDS), st.integers(0, 3)))


def tell(watch: ShutdownPolicy, event: str, shard: str | None = None, code: int = 0) -> None:
    watch.see({"source": "kcl", "event": event, "shard": shard, "code": code})


def begun() -> ShutdownPolicy:
    watch = ShutdownPolicy(PATIENCE)
    for shard in SHARDS:
        tell(watch, "shard_initialized", shard)
    return watch


@given(STORY, st.integers(0, 99))
def test_without_a_stop_request_only_a_failed_child_ends_the_daemon(
    story: list[tuple[str, str, int]], now: float
) -> None:
    watch = begun()
    for event, shard, code in story:
        tell(watch, event, shard, code)
    act = watch.decide(0, now)
    if not any(event == "child_failed" for event, _, _ in story):
        assert act is None
        assert watch.child is None
    assert act in (None, Action.KILL_JVM)
    assert not watch.forced


@given(STORY, STORY)
def test_one_stop_request_terminates_once_and_kills_after_the_timeout(
    before: list[tuple[str, str, int]], after: list[tuple[str, str, int]]
) -> None:
    watch = begun()
    for event, shard, code in before:
        tell(watch, event, shard, code)
    assert watch.decide(1, 0) is Action.TERMINATE
    for event, shard, code in after:
        tell(watch, event, shard, code)
        assert watch.decide(1, 9) is None
    assert watch.decide(1, 99) in (None, Action.KILL_JVM)
    assert not watch.forced
    assert watch.decide(1, 100) is Action.KILL_ALL
    assert watch.forced


def test_a_second_stop_request_kills_everything() -> None:
    for wishes in ([1, 2], [2, 2], [1, 1, 5]):
        watch = begun()
        acts = [watch.decide(count, 0) for count in wishes]
        assert (acts[0], acts[-1]) == (Action.TERMINATE, Action.KILL_ALL)
        assert watch.forced


@pytest.mark.parametrize("last_words", ["shard_ended", "lease_lost", "shard_stopping", "child_silent"])
def test_after_a_crash_every_other_shard_may_finish(last_words: str) -> None:
    watch = begun()
    tell(watch, "child_silent", "a")
    tell(watch, "child_failed", "a")
    assert watch.decide(0, 0) is None
    tell(watch, "child_exited", "a", 7)
    tell(watch, last_words, "b")
    assert watch.decide(0, 1) is None
    tell(watch, last_words, "c")
    assert watch.decide(0, 2) is Action.KILL_JVM
    assert watch.child == 7


def test_after_a_crash_the_wait_for_a_silent_shard_is_limited() -> None:
    watch = begun()
    tell(watch, "child_failed")
    assert watch.decide(0, 5) is None
    assert watch.decide(0, 24) is None
    assert watch.decide(0, 25) is Action.KILL_JVM
    assert watch.child is None


def test_a_daemon_that_shuts_down_normally_is_not_killed() -> None:
    watch = begun()
    watch.decide(1, 0)
    for shard in SHARDS:
        tell(watch, "shard_stopping", shard)
        tell(watch, "lease_lost", shard)
    assert [watch.decide(1, now) for now in range(0, 100, 10)] == [None] * 10


def test_a_daemon_that_restarts_shards_instead_of_stopping_is_killed_after_all_have_finished() -> None:
    watch = begun()
    watch.decide(1, 0)
    for shard in "ab":
        tell(watch, "shard_stopping", shard)
        tell(watch, "shard_initialized", shard)
    assert watch.decide(1, 30) is None, "c is still at its last words"
    tell(watch, "shard_stopping", "c")
    assert [watch.decide(1, now) for now in (40, 49, 50)] == [None, None, Action.KILL_JVM]
    assert not watch.forced


def test_events_of_the_application_do_not_affect_the_policy() -> None:
    watch = begun()
    watch.see({"source": "app", "event": "child_failed"})
    assert watch.decide(0, 1000) is None


def test_an_initialised_shard_that_exits_with_the_configuration_error_code_is_a_crash() -> None:
    """A user's function may call os._exit(2): another start must come of it."""
    watch = begun()
    tell(watch, "child_silent", "a")
    tell(watch, "child_failed", "a")
    tell(watch, "child_exited", "a", 2)
    assert watch.child == 1
    watch = ShutdownPolicy(PATIENCE)
    tell(watch, "child_silent", "a")
    tell(watch, "child_failed", "a")
    tell(watch, "child_exited", "a", 2)
    assert watch.child == 2


def test_an_initialised_shard_that_logs_a_configuration_error_ends_the_launcher() -> None:
    """As one does where a user's code fails on as many records as `stop_after_failures` says."""
    watch = begun()
    watch.see({"source": "app", "event": "it failed", "shard": "a", "exit_code": 2})
    tell(watch, "child_silent", "a")
    tell(watch, "child_failed", "a")
    tell(watch, "child_exited", "a", 2)
    assert watch.child == 2
