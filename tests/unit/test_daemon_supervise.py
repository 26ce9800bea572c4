"""Restarts: bounded within a window, spaced out, and ended by a wish to stop."""

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


class World:
    """Daemons that end as told, each after so many seconds of a clock of our own."""

    def __init__(self, endings: Iterator[Ending], seconds: float = 0.0) -> None:
        self.endings, self.seconds = endings, seconds
        self.now, self.runs = 0.0, 0
        self.told: list[Line] = []
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
            log=self.told.append,
            chance=lambda: 0.5,
            clock=lambda: self.now,
        )


def forever(ending: Ending) -> Iterator[Ending]:
    while True:
        yield ending


@given(st.integers(0, 6), st.integers().filter(lambda code: code != 0))
def test_a_daemon_that_always_crashes_is_given_up(limit: int, code: int) -> None:
    dependencies = World(forever(Ending(code)), seconds=1)
    assert dependencies.supervise(Restarts(limit=limit, window_seconds=100, base_seconds=0)) == 1
    assert dependencies.runs == limit + 1
    assert [line["event"] for line in dependencies.told] == ["daemon_restarting"] * limit + ["daemon_gave_up"]


def test_crashes_that_lie_far_apart_are_forgiven() -> None:
    endings = [Ending(1)] * 50 + [Ending(143, stopped=True)]
    dependencies = World(iter(endings), seconds=AT_ONCE.window_seconds / AT_ONCE.limit + 1)
    assert (dependencies.supervise(), dependencies.runs) == (0, 51)


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
def test_an_ending_that_is_final(ending: Ending, code: int) -> None:
    dependencies = World(iter([ending]))
    assert (dependencies.supervise(), dependencies.runs) == (code, 1)


def test_a_wish_to_stop_ends_the_waiting_for_a_restart() -> None:
    dependencies = World(forever(Ending(1)))
    timer = threading.Timer(0.05, dependencies.stop.request)
    timer.start()
    assert dependencies.supervise(Restarts(base_seconds=3600, cap_seconds=3600)) == 0
    timer.join()
    assert dependencies.runs == 1


def test_restarts_that_bring_a_shard_further_do_not_count_up_to_a_bound() -> None:
    """Two for each record that ends its process; a shard that crashes for ever ends all the same."""
    policy = Restarts(limit=2, window_seconds=100, base_seconds=0, recovering_limit=10)
    dependencies = World(forever(Ending(1, recovering=True)), seconds=1)
    assert dependencies.supervise(policy) == 1
    assert [line.get("counts") for line in dependencies.told] == [*[False] * 10, True, True, None]
    mixed = [*[Ending(1, recovering=True)] * 5, Ending(1), *[Ending(1, recovering=True)] * 5, Ending(1)]
    dependencies = World(iter([*mixed, Ending(143, stopped=True)]), seconds=1)
    assert dependencies.supervise(policy) == 0
    dependencies = World(forever(Ending(1, recovering=True)), seconds=11)
    dependencies.endings = iter([*[Ending(1, recovering=True)] * 200, Ending(143, stopped=True)])
    assert dependencies.supervise(policy) == 0


@given(st.integers(0, 100), st.floats(0, 1, exclude_max=True), st.floats(0.01, 10), st.floats(10, 100))
def test_a_restart_waits_longer_each_time_up_to_the_cap(
    n: int, chance: float, base: float, cap: float
) -> None:
    policy = Restarts(base_seconds=base, cap_seconds=cap)
    assert 0 < policy.delay(n, chance) <= cap
    assert policy.delay(n, chance) <= policy.delay(n + 1, chance)
    assert policy.delay(n, 0.0) <= policy.delay(n, chance) <= 2 * policy.delay(n, 0.0)


def test_a_stop_is_acknowledged_once_and_not_forgotten() -> None:
    stop = Stop()
    assert (stop.acknowledge(), stop.wait(0)) == (0, False)
    for _ in range(100_000):  # more than a pipe holds
        stop.request()
    assert stop.acknowledge() == stop.requests == 100_000
    assert stop.acknowledge() == 100_000
    assert stop.wait(0)
    stop.close()
