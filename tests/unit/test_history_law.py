"""No loop runs for ever: each position is corrected at most once and comes before people at most once."""

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
    """The process died here."""


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
class World:
    """The history and the stored rows in memory; each effect may be the last of its process."""

    crashes: set[int] = field(default_factory=set)
    early: Counter[Position] = field(default_factory=Counter)
    impossible: set[Position] = field(default_factory=set)
    unlucky: set[int] = field(default_factory=set)
    entries: dict[Position, Entry] = field(default_factory=dict)
    overwritten: list[Position] = field(default_factory=list)
    told: list[Position] = field(default_factory=list)
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
        if self.effects in self.unlucky:
            raise OSError("the world")
        if self.early[position] > 0:
            self.early[position] -= 1
            raise NotReadyError
        if position in self.impossible:
            raise UncorrectableError("nothing to correct")
        if position not in self.overwritten:  # an overwrite that finds its row corrected leaves it
            self.overwritten.append(position)
        self.effect()
        return Correction(key="", version="", version_before="", before={}, after={})

    def tell(self, refusal: Refusal) -> None:
        self.effect()
        self.told.append(refusal.request.position)
        self.effect()

    def store(self, request: Request, reason: str) -> str:
        self.effect()
        self.objects[request.position] = reason
        self.effect()
        return "key"


def run(dependencies: World, asked: list[Request], bound: int, size: int = 1) -> None:
    """Both queues until they are empty, as SQS would: what is not answered comes again, at most so often.

    `size` messages come together, those of one position one after the other.
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
                    dependencies.tell,
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
def test_each_position_is_corrected_and_refused_at_most_once_and_nothing_goes_round_for_ever(
    asked: list[Request],
    crashes: set[int],
    unlucky: set[int],
    early: dict[Position, int],
    impossible: set[Position],
    size: int,
) -> None:
    dependencies = World(crashes=crashes, unlucky=unlucky, early=Counter(early), impossible=impossible)
    run(dependencies, asked, bound=len(asked) * (RECEIVES + 1) + len(crashes), size=size)
    assert max(Counter(dependencies.overwritten).values(), default=0) <= 1
    before_people = Counter(dependencies.told)
    for position in {one.position for one in asked}:
        entry = dependencies.entries[position]
        assert entry.done or entry.refusal
        # What was written is noted. Where a process died before its note and every try after it failed, people know.
        assert (position in dependencies.overwritten) == (entry.done is not None) or entry.refusal
        assert entry.refusal is None or entry.notified
        # A crash between telling and noting tells once more, under the same position.
        assert before_people[position] <= 1 + dependencies.crashed
    assert sum(before_people.values()) <= len(before_people) + dependencies.crashed
    told = set(before_people) | set(dependencies.objects)
    assert {at for at, entry in dependencies.entries.items() if entry.refusal} <= told


@given(requests)
def test_a_second_round_of_the_same_requests_does_nothing(asked: list[Request]) -> None:
    dependencies = World()
    run(dependencies, asked, bound=len(asked) * (RECEIVES + 1))
    before = dict(dependencies.entries), list(dependencies.overwritten), list(dependencies.told)
    run(dependencies, asked, bound=len(asked))
    assert (dependencies.entries, dependencies.overwritten, dependencies.told) == before


def test_a_second_request_is_for_people_and_a_repeat_for_nobody() -> None:
    dependencies = World()
    verdicts = [
        correct(request(1, by), dependencies, dependencies.work, dependencies.tell)
        for by in ("a", "a", "b", "b", "c")
    ]
    assert [verdict.value for verdict in verdicts] == [
        "corrected",
        "repeated",
        "manual",
        "repeated",
        "repeated",
    ]
    refusal = dependencies.entries[Position("s", "1")].refusal
    assert refusal is not None
    assert (refusal.reason, refusal.request.by) == (ALREADY_CORRECTED, "b")


def test_a_person_may_try_what_was_refused_but_not_correct_twice() -> None:
    dependencies = World(impossible={Position("s", "1")})
    assert (
        correct(request(1, "a"), dependencies, dependencies.work, dependencies.tell) is RequestResult.MANUAL
    )
    dependencies.impossible.clear()
    correct_refused(request(1, "person"), dependencies, dependencies.work)
    with pytest.raises(UncorrectableError, match="already corrected once"):
        correct_refused(request(1, "person"), dependencies, dependencies.work)
    assert dependencies.entries[Position("s", "1")].status == "corrected, manual"


def test_nothing_here_speaks_to_the_bus() -> None:
    """What a correction may call on its clients, read from the source: never PutEvents, nor a stream's Put."""
    files = sorted(Path(inspect.getfile(module)).parent.glob("*.py"))
    assert files
    for file in files:
        nodes = ast.walk(ast.parse(file.read_text()))
        named = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        assert not named & {"put_events", "put_record", "put_records", "publish"}, file.name


def test_the_shape_of_the_book_is_that_of_the_history() -> None:
    from stream_app.recovery.correct.history import History

    books: list[ModuleType | type] = [module.HistoryStore, History]
    for name in ("start", "start_all", "finish", "finish_all", "refuse", "notified"):
        shapes = {str(inspect.signature(getattr(book, name))) for book in books}
        assert len(shapes) == 1, name


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
def test_a_bucket_never_gives_more_than_its_burst_and_its_rate(
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
def test_what_is_put_off_waits_longer_each_time_and_never_longer_than_its_bound(receives: int) -> None:
    assert 2 <= retry_delay_seconds(receives) <= retry_delay_seconds(receives + 1) <= 900
