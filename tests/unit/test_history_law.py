"""Corrections cannot loop: each position is corrected at most once and escalated to people at most once."""

from __future__ import annotations

import ast
import inspect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.model.record import Position
from stream_app.recovery.correct import request as module
from stream_app.recovery.correct.calculation.recalculate import UncorrectableError
from stream_app.recovery.correct.history_entry import Correction, Entry, Refusal, Request
from stream_app.recovery.correct.limits import TokenBucket, retry_delay_seconds
from stream_app.recovery.correct.request import (
    ALREADY_CORRECTED,
    NotReadyError,
    RequestResult,
    correct,
    correct_all,
    correct_refused,
    final_attempt,
    one_by_one,
)

RECEIVES = 4


class CrashError(BaseException):
    """Simulates the death of the process."""


def request(position: int, by: str) -> Request:
    return Request(
        id=f"{position}/{by}",
        event="e",
        key="k",
        consumer="air",
        shard="s",
        sequence=str(position),
        arrived=0,
        by=by,
    )


@dataclass
class MemoryCorrections:
    """The history and the stored rows in memory; the process may crash at any effect."""

    crashes: set[int] = field(default_factory=set)
    early: Counter[Position] = field(default_factory=Counter)
    impossible: set[Position] = field(default_factory=set)
    transient_failures: set[int] = field(default_factory=set)
    entries: dict[Position, Entry] = field(default_factory=dict)
    overwritten: list[Position] = field(default_factory=list)
    notifications: list[Position] = field(default_factory=list)
    objects: dict[Position, str] = field(default_factory=dict)
    effects: int = 0
    crashed: int = 0

    def effect(self) -> None:
        self.effects += 1
        if self.effects in self.crashes:
            self.crashed += 1
            raise CrashError

    def start(self, request: Request) -> Entry:
        self.effect()
        return self.entries.setdefault(request.position, Entry(request=request, at=0))

    def finish(self, request: Request, done: Correction) -> bool:
        self.effect()
        entry = self.entries[request.position]
        if entry.done is None:
            self.entries[request.position] = msgspec.structs.replace(entry, done=done, done_at=0)
        self.effect()
        return entry.done is None

    def start_all(self, requests: Sequence[Request]) -> list[Entry | Exception]:
        return [self.start(request) for request in requests]

    def finish_all(self, made: Sequence[tuple[Entry, Correction]]) -> list[bool | Exception]:
        return [self.finish(entry.request, done) for entry, done in made]

    def refuse(self, request: Request, reason: str, stored: str | None = None) -> bool:
        self.effect()
        entry = self.entries[request.position]
        if entry.refusal is None:
            refusal = Refusal(request=request, reason=reason, at=0, stored=stored)
            self.entries[request.position] = msgspec.structs.replace(entry, refusal=refusal)
        self.effect()
        return entry.refusal is None

    def notified(self, request: Request) -> None:
        entry = self.entries[request.position]
        self.entries[request.position] = msgspec.structs.replace(entry, notified=True)

    def work(self, request: Request) -> Correction:
        position = request.position
        self.effect()
        if self.effects in self.transient_failures:
            raise OSError("transient failure")
        if self.early[position] > 0:
            self.early[position] -= 1
            raise NotReadyError
        if position in self.impossible:
            raise UncorrectableError("nothing to correct")
        if position not in self.overwritten:  # an overwrite is idempotent
            self.overwritten.append(position)
        self.effect()
        return Correction(key="", version="", version_before="", before={}, after={})

    def notify(self, refusal: Refusal) -> None:
        self.effect()
        self.notifications.append(refusal.request.position)
        self.effect()

    def store(self, request: Request, reason: str) -> str:
        self.effect()
        self.objects[request.position] = reason
        self.effect()
        return "key"


def run(dependencies: MemoryCorrections, asked: list[Request], bound: int, size: int = 1) -> None:
    """Process both queues until they are empty, like SQS: failed messages are received again, up to RECEIVES times.

    Messages are received in batches of `size`; a batch contains a position at most once.
    """
    queue, dead = [(one, 1) for one in asked], list[Request]()
    for _ in range(bound + 1):
        if queue:
            taken, queue = queue[:size], queue[size:]
            together, others = list[tuple[Request, int]](), list[tuple[Request, int]]()
            for each in taken:
                known = {one.position for one, _ in together}
                (others if each[0].position in known else together).append(each)
            queue = [*others, *queue]
            try:
                answers = correct_all(
                    [one for one, _ in together],
                    dependencies,
                    one_by_one(dependencies.work),
                    dependencies.notify,
                )
            except CrashError:
                answers = [OSError()] * len(together)
            for (one, receives), answer in zip(together, answers, strict=True):
                if answer is not RequestResult.EARLY and not isinstance(answer, Exception):
                    continue
                if receives < RECEIVES:
                    queue.append((one, receives + 1))
                else:
                    dead.append(one)
        elif dead:
            one = dead.pop(0)
            try:
                final_attempt(one, dependencies, dependencies.work, dependencies.store)
            except CrashError:
                dead.append(one)
        else:
            return
    raise AssertionError(f"{len(queue)} and {len(dead)} are left after {bound} steps")


requests = st.lists(
    st.builds(request, st.integers(0, 3), st.sampled_from(["checks", "model", "monitor", "person"])),
    max_size=25,
)
positions = st.integers(0, 3).map(lambda at: Position("s", str(at)))


@settings(max_examples=300)
@given(
    requests,
    st.sets(st.integers(1, 80), max_size=12),
    st.sets(st.integers(1, 80), max_size=12),
    st.dictionaries(positions, st.integers(0, 12)),
    st.sets(positions),
    st.integers(1, 10),
)
def test_each_position_is_corrected_and_refused_at_most_once_and_processing_ends(
    asked: list[Request],
    crashes: set[int],
    transient_failures: set[int],
    early: dict[Position, int],
    impossible: set[Position],
    size: int,
) -> None:
    dependencies = MemoryCorrections(
        crashes=crashes, transient_failures=transient_failures, early=Counter(early), impossible=impossible
    )
    run(dependencies, asked, bound=len(asked) * (RECEIVES + 1) + len(crashes), size=size)
    assert max(Counter(dependencies.overwritten).values(), default=0) <= 1
    before_people = Counter(dependencies.notifications)
    for position in {one.position for one in asked}:
        entry = dependencies.entries[position]
        assert entry.done or entry.refusal
        # Every overwrite is recorded. If a crash prevented this and all later attempts failed, people are notified.
        assert (position in dependencies.overwritten) == (entry.done is not None) or entry.refusal
        assert entry.refusal is None or entry.notified
        # A crash between notifying and recording repeats the notification for the same position.
        assert before_people[position] <= 1 + dependencies.crashed
    assert sum(before_people.values()) <= len(before_people) + dependencies.crashed
    notifications = set(before_people) | set(dependencies.objects)
    assert {at for at, entry in dependencies.entries.items() if entry.refusal} <= notifications


@given(requests)
def test_processing_the_same_requests_again_has_no_effect(asked: list[Request]) -> None:
    dependencies = MemoryCorrections()
    run(dependencies, asked, bound=len(asked) * (RECEIVES + 1))
    before = dict(dependencies.entries), list(dependencies.overwritten), list(dependencies.notifications)
    run(dependencies, asked, bound=len(asked))
    assert (dependencies.entries, dependencies.overwritten, dependencies.notifications) == before


def test_a_second_correction_is_manual_and_a_duplicate_request_is_ignored() -> None:
    dependencies = MemoryCorrections()
    results = [
        correct(request(1, by), dependencies, dependencies.work, dependencies.notify)
        for by in ("a", "a", "b", "b", "c")
    ]
    assert [result.value for result in results] == [
        "corrected",
        "repeated",
        "manual",
        "repeated",
        "repeated",
    ]
    refusal = dependencies.entries[Position("s", "1")].refusal
    assert refusal is not None
    assert (refusal.reason, refusal.request.by) == (ALREADY_CORRECTED, "b")


def test_a_person_can_retry_a_refused_correction_but_not_correct_twice() -> None:
    dependencies = MemoryCorrections(impossible={Position("s", "1")})
    assert (
        correct(request(1, "a"), dependencies, dependencies.work, dependencies.notify) is RequestResult.MANUAL
    )
    dependencies.impossible.clear()
    correct_refused(request(1, "person"), dependencies, dependencies.work)
    with pytest.raises(UncorrectableError, match="already corrected once"):
        correct_refused(request(1, "person"), dependencies, dependencies.work)
    assert dependencies.entries[Position("s", "1")].status == "corrected, manual"


def test_corrections_never_publish_events() -> None:
    """The source must not call PutEvents, PutRecord or PutRecords on a client."""
    files = sorted(Path(inspect.getfile(module)).parent.glob("*.py"))
    assert files
    for file in files:
        nodes = ast.walk(ast.parse(file.read_text()))
        named = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        assert not named & {"put_events", "put_record", "put_records", "publish"}, file.name


def test_the_history_store_protocol_matches_the_history() -> None:
    from stream_app.recovery.correct.history import History

    classes: list[ModuleType | type] = [module.HistoryStore, History]
    for name in ("start", "start_all", "finish", "finish_all", "refuse", "notified"):
        signatures = {str(inspect.signature(getattr(owner, name))) for owner in classes}
        assert len(signatures) == 1, name


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


@given(
    st.floats(0.1, 100.0),
    st.floats(1.0, 20.0),
    st.lists(st.tuples(st.floats(0.0, 5.0), st.floats(0.0, 30.0)), max_size=50),
)
def test_a_token_bucket_never_exceeds_its_burst_and_rate(
    rate: float, burst: float, asked: list[tuple[float, float]]
) -> None:
    clock, given_at = Clock(), list[float]()
    bucket = TokenBucket(rate, burst, clock, clock.sleep)
    for pause, timeout in asked:
        clock.now += pause
        before = clock.now
        if bucket.acquire(timeout):
            given_at.append(clock.now)
        assert clock.now - before <= timeout + 1e-9
    for first in range(len(given_at)):
        for last in range(first, len(given_at)):
            most = burst + (given_at[last] - given_at[first]) * rate
            assert last - first + 1 <= most + 1 + 1e-6


@given(st.integers(-1, 10_000))
def test_the_retry_delay_increases_up_to_its_maximum(receives: int) -> None:
    assert 2 <= retry_delay_seconds(receives) <= retry_delay_seconds(receives + 1) <= 900
