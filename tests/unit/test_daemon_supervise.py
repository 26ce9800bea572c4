"""Restarts are limited per time window, delayed by a backoff and ended by a stop request."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.daemon.supervisor import Ending, Restarts, Stop, supervise

Line = dict[str, Any]
AT_ONCE = Restarts(limit=3, window_seconds=100, base_seconds=0)


class Daemons:
    """Runs daemons with the given endings, each for `seconds` of a simulated clock."""

    def __init__(self, endings: Iterator[Ending], seconds: float = 0.0) -> None:
        self.endings, self.seconds = endings, seconds
        self.now, self.runs = 0.0, 0
        self.logged: list[Line] = []
        self.stop = Stop()

    def run(self) -> Ending:
        self.runs += 1
        self.now += self.seconds
        return next(self.endings)

    def supervise(self, policy: Restarts = AT_ONCE) -> int:
        return supervise(
            self.run,
            policy,
            stop=self.stop,
            log=self.logged.append,
            chance=lambda: 0.5,
            clock=lambda: self.now,
        )


def forever(ending: Ending) -> Iterator[Ending]:
    while True:
        yield ending


@given(st.integers(0, 6), st.integers().filter(lambda code: code != 0))
def test_restarts_stop_after_the_limit(limit: int, code: int) -> None:
    daemons = Daemons(forever(Ending(code)), seconds=1)
    assert daemons.supervise(Restarts(limit=limit, window_seconds=100, base_seconds=0)) == 1
    assert daemons.runs == limit + 1
    assert [line["event"] for line in daemons.logged] == ["daemon_restarting"] * limit + ["daemon_gave_up"]


def test_crashes_outside_the_window_do_not_count() -> None:
    endings = [Ending(1)] * 50 + [Ending(143, stopped=True)]
    daemons = Daemons(iter(endings), seconds=AT_ONCE.window_seconds / AT_ONCE.limit + 1)
    assert (daemons.supervise(), daemons.runs) == (0, 51)


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (Ending(143, stopped=True), 0),
        (Ending(-signal.SIGTERM, stopped=True), 0),
        (Ending(1, stopped=True, child=1), 0),
        (Ending(-signal.SIGKILL, stopped=True), 0),
        (Ending(-signal.SIGKILL, stopped=True, forced=True), 1),
        (Ending(1, child=2), 2),
        (Ending(-signal.SIGKILL, child=2), 2),
        (Ending(0), 0),
    ],
)
def test_final_endings_and_their_exit_codes(ending: Ending, code: int) -> None:
    daemons = Daemons(iter([ending]))
    assert (daemons.supervise(), daemons.runs) == (code, 1)


def test_a_stop_request_interrupts_the_restart_delay() -> None:
    daemons = Daemons(forever(Ending(1)))
    timer = threading.Timer(0.05, daemons.stop.request)
    timer.start()
    assert daemons.supervise(Restarts(base_seconds=3600, cap_seconds=3600)) == 0
    timer.join()
    assert daemons.runs == 1


def test_restarts_with_progress_do_not_count_up_to_a_limit() -> None:
    """A record that crashes its process takes two restarts; a shard that always crashes still stops."""
    policy = Restarts(limit=2, window_seconds=100, base_seconds=0, recovering_limit=10)
    daemons = Daemons(forever(Ending(1, recovering=True)), seconds=1)
    assert daemons.supervise(policy) == 1
    assert [line.get("counts") for line in daemons.logged] == [*[False] * 10, True, True, None]
    mixed = [*[Ending(1, recovering=True)] * 5, Ending(1), *[Ending(1, recovering=True)] * 5, Ending(1)]
    daemons = Daemons(iter([*mixed, Ending(143, stopped=True)]), seconds=1)
    assert daemons.supervise(policy) == 0
    daemons = Daemons(forever(Ending(1, recovering=True)), seconds=11)
    daemons.endings = iter([*[Ending(1, recovering=True)] * 200, Ending(143, stopped=True)])
    assert daemons.supervise(policy) == 0


@given(st.integers(0, 100), st.floats(0, 1, exclude_max=True), st.floats(0.01, 10), st.floats(10, 100))
def test_the_restart_delay_increases_up_to_the_cap(n: int, chance: float, base: float, cap: float) -> None:
    policy = Restarts(base_seconds=base, cap_seconds=cap)
    assert 0 < policy.delay(n, chance) <= cap
    assert policy.delay(n, chance) <= policy.delay(n + 1, chance)
    assert policy.delay(n, 0.0) <= policy.delay(n, chance) <= 2 * policy.delay(n, 0.0)


def test_stop_requests_are_counted_and_persist_after_acknowledgement() -> None:
    stop = Stop()
    assert (stop.acknowledge(), stop.wait(0)) == (0, False)
    for _ in range(100_000):  # more than the capacity of a pipe
        stop.request()
    assert stop.acknowledge() == stop.requests == 100_000
    assert stop.acknowledge() == 100_000
    assert stop.wait(0)
    stop.close()
