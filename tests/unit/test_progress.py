"""Progress of a run, and its timeout."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream_app.local.run.drain import Depth, Remaining
from stream_app.local.run.progress import STUCK_SECONDS, Progress
from stream_app.recovery.correct.limits import retry_delay_seconds


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def left(visible: int = 0, in_flight: int = 0, shards: tuple[str, ...] = (), manual: int = 0) -> Remaining:
    return Remaining({"corrections": Depth(visible, in_flight)}, shards, {"manual review": Depth(manual, 0)})


def test_every_change_is_progress_and_is_described() -> None:
    clock = Clock()
    progress = Progress(clock)
    steps = [
        (left(9, 0, ("s-1",)), {"records processed": 5}, None),
        (left(4, 5, ("s-1",)), {"records processed": 5}, None),  # Received but not processed.
        (left(9, 0, ("s-1",)), {"records processed": 6}, "records processed (5 to 6)"),
        (left(3, 3, ("s-1",)), {}, "queue corrections (9 to 6 messages)"),
        (left(3, 3, ()), {}, "shards (1 to 0 not committed to their end)"),
        (left(3, 3, (), 1), {}, "queue manual review (0 to 1 messages)"),
        (left(3, 3, (), 1), {"corrections made": 7}, None),  # Counted for the first time.
        (left(3, 3, (), 1), {"corrections made": 8}, "corrections made (7 to 8)"),
    ]
    for remaining, done, moved in steps:
        clock.now += 10.0
        at = progress.last_at
        progress.update(remaining, done)
        assert (progress.last_at > at) == (moved is not None)
        assert moved is None or progress.last == moved
    clock.now += 61.0
    assert str(progress) == (
        "waiting for queue corrections (3 visible, 3 in flight); "
        "the last progress, 61 s ago, was in corrections made (7 to 8)"
    )
    assert progress.to_json() == {
        "queues": {"corrections": {"visible": 3, "in_flight": 3}},
        "shards": [],
        "last_progress": "corrections made (7 to 8)",
        "last_progress_s_ago": 61.0,
    }


def test_a_run_without_progress_is_stuck() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.update(left(2), {})
    clock.now += STUCK_SECONDS
    assert not progress.stuck
    clock.now += 1.0
    assert progress.stuck


@given(st.floats(0.0, 3_000.0), st.floats(0.0, 600.0))
def test_a_hidden_request_becomes_visible_before_the_timeout(first: float, committed: float) -> None:
    """A request is first received `first` seconds after the start; its segment is committed `committed` later."""
    clock = Clock()
    progress = Progress(clock)
    start = clock.now
    at, receives = start + first, 1
    while at < start + first + committed:  # Too early, so it is hidden.
        at += retry_delay_seconds(receives)
        receives += 1
    clock.now = start + first + committed
    progress.update(left(0, 1, ("s-1",)), {"records committed": 1})
    progress.update(left(0, 1), {"records committed": 2})
    assert progress.last_at == clock.now
    assert at - progress.last_at <= progress.timeout


def test_drained_means_empty_queues_and_committed_shards() -> None:
    assert left(manual=3).is_drained
    assert str(left()) == "nothing"
    assert not left(0, 1).is_drained
    assert not left(shards=("s-1",)).is_drained
    assert str(left(0, 1, ("s-1",))) == (
        "queue corrections (0 visible, 1 in flight), shard s-1 (not committed to its end)"
    )
