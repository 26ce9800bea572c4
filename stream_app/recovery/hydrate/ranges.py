"""Hydrates dead letters of pipes and functions: each names a range of records, some of which fail."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, groupby, islice
from typing import NamedTuple

from stream_app.model.record import Failure, Position, Record
from stream_app.model.segment import token
from stream_app.recovery.dead_letters import KIND, VERSION, DeadLetter
from stream_app.recovery.hydrate.dependencies import HydrateDependencies, Result, why
from stream_app.recovery.hydrate.results import DeadLetterRecord, State, put_record, record_key, record_of
from stream_app.recovery.hydrate.shapes import Range
from stream_app.recovery.hydrate.trial import Outcome, Run, TrialFactory, joined, pass_all, runs
from stream_app.recovery.store import failure, put
from stream_app.recovery.stream.read import RawRecord, user_records
from stream_app.recovery.stream.runs import Reader, number

DELIVERY, DELIVERY_FAILED = "delivery", "DELIVERY_FAILED"
# Small ranges are read first and then stored concurrently: the maximum number of ranges and bytes in memory.
_MAX_HELD, _MAX_HELD_BYTES = 100, 8 * 1_048_576
_SMALL_PAGES = 2

Sent = tuple[int, Range]


class NotThereError(Exception):
    """The shard never contained the range: the dead letter is wrong, or is about another stream."""


class _Page(NamedTuple):
    """A page of a range: Kinesis records, their user records, and the failures by row of the user records."""

    raw: Sequence[RawRecord]
    users: Sequence[Record]
    failing: Mapping[int, Failure]


@dataclass(slots=True)
class _Case:
    """A range to store. `pages` may be called twice; `error` is the reason why it cannot be stored now."""

    at: int
    dead_letter: Range
    reader: Reader
    pages: Callable[[], Iterable[_Page]]
    tested: bool
    size: int = 0
    error: str = ""


@dataclass(slots=True)
class _Read:
    """A range as read: first and last sequence number, Kinesis and user records, and the outcome of each record."""

    first: int = -1
    last: int = -1
    found: int = 0
    records: int = 0
    runs: list[Run] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    @property
    def failing(self) -> bool:
        """Whether any record was stored as a failure."""
        return any(run.outcome == Outcome.FAILED for run in self.runs)


def hydrate_ranges(dead_letters: Sequence[Sent], dependencies: HydrateDependencies) -> Iterator[Result]:
    """Store the failing records of ranges and a summary of each range, and yield a result for each. Idempotent.

    The failing records are those that fail in the pipeline. If none fails, the records were not the cause (for
    example, the target was unavailable), and all of them are stored as DELIVERY_FAILED. An error with one dead letter
    leaves it waiting. The results are lazy; a few pages are in memory at a time.
    """
    ordered = sorted(
        dead_letters, key=lambda sent: (sent[1].arn, sent[1].shard, int(sent[1].first), int(sent[1].last))
    )
    for (arn, shard), members in groupby(ordered, key=lambda sent: (sent[1].arn, sent[1].shard)):
        some = list(members)
        most = max(dead_letter.size for _, dead_letter in some)
        reader = Reader(dependencies.stream_client, arn, shard, dependencies.page_for(len(some), most))
        yield from _of_shard(some, reader, dependencies)


def _of_shard(
    dead_letters: Sequence[Sent], reader: Reader, dependencies: HydrateDependencies
) -> Iterator[Result]:
    # Tasks of the thread pool must not wait for other tasks of the pool.
    alone = dataclasses.replace(dependencies, threads=None)
    held: list[_Case] = []
    for at, dead_letter in dead_letters:
        case = _prepare(at, dead_letter, reader, dependencies)
        if case.size < 0:
            yield _finish(dependencies, case)
            continue
        held.append(case)
        if len(held) >= _MAX_HELD or sum(one.size for one in held) > _MAX_HELD_BYTES:
            yield from dependencies.each(partial(_finish, alone), held)
            held = []
    yield from dependencies.each(partial(_finish, alone), held)


def _prepare(at: int, dead_letter: Range, reader: Reader, dependencies: HydrateDependencies) -> _Case:
    """Read and test a small range, of known size in bytes. A large one, of size -1, is read when it is stored."""
    case = _Case(at, dead_letter, reader, lambda: (), tested=False)
    if dependencies.hurried:
        case.error = "no time was left for it"
        return case
    try:
        trial_factory = dependencies.trial_factory()
        case.tested = trial_factory is not pass_all
        pages = _tested_pages(dead_letter, reader, trial_factory)
        first = list(islice(pages, _SMALL_PAGES + 1))
    except Exception as error:
        # Only this dead letter is affected; it stays in its queue and is delivered again.
        case.error = why(error)
        return case
    if len(first) > _SMALL_PAGES:
        case.pages = _resume(chain(first, pages), partial(_tested_pages, dead_letter, reader, trial_factory))
        case.size = -1
        return case
    case.pages = lambda: first
    case.size = sum(len(user.data) for page in first for user in page.users)
    return case


def _resume(first: Iterable[_Page], again: Callable[[], Iterable[_Page]]) -> Callable[[], Iterable[_Page]]:
    """Return a function that returns `first` once, and on later calls `again()`."""
    begun = [first]
    return lambda: begun.pop() if begun else again()


def _tested_pages(dead_letter: Range, reader: Reader, trial_factory: TrialFactory) -> Iterator[_Page]:
    trial = trial_factory()
    for raw in _pages(dead_letter, reader):
        users = [user for record in raw for user in user_records(dict(record))[0]]
        yield _Page(raw, users, trial(users))


def _pages(dead_letter: Range, reader: Reader) -> Iterator[Sequence[RawRecord]]:
    """Yield the records in the dead letter if they are complete, otherwise those of the stream."""
    carried = dead_letter.carried
    if (
        carried
        and len(carried) >= dead_letter.size
        and _ends(carried) == (int(dead_letter.first), int(dead_letter.last))
    ):
        yield carried
        return
    empty = True
    for records in reader.run(
        dead_letter.first, dead_letter.last, (dead_letter.arrived, dead_letter.arrived_last)
    ):
        empty = False
        yield records
    if empty and carried:
        yield carried


def _ends(records: Sequence[RawRecord]) -> tuple[int, int]:
    return number(records[0]), number(records[-1])


def _finish(dependencies: HydrateDependencies, case: _Case) -> Result:
    dead_letter = case.dead_letter
    if case.error:
        return Result(case.at, dead_letter, State.WAITING, case.error)
    try:
        done = _store_range(case, dependencies, everything=not case.tested)
        if done.found and not done.failing:
            done = _store_range(case, dependencies, everything=True)
        record = put_record(
            dependencies.s3,
            dependencies.bucket,
            record_key(dead_letter),
            _record(dead_letter, done, case.reader),
        )
    except Exception as error:
        return Result(case.at, dead_letter, State.WAITING, why(error))
    return Result(case.at, dead_letter, record.state, record.reason, done.written, done.kept)


def _store_range(case: _Case, dependencies: HydrateDependencies, *, everything: bool) -> _Read:
    """Store the failing records, or all of them."""
    done, dead_letter = _Read(), case.dead_letter
    origin = record_key(dead_letter)
    for page in case.pages():
        chosen = [row for row in range(len(page.users)) if everything or row in page.failing]
        found = [
            (_dead_letter(dead_letter, page.users[row], page.failing.get(row)), page.users[row].data)
            for row in chosen
        ]
        for key, new in dependencies.each(partial(_store, dependencies, origin), found):
            (done.written if new else done.kept).append(key)
        _count(done, page, set(chosen), dead_letter.shard)
    return done


def _count(done: _Read, page: _Page, stored: set[int], shard: str) -> None:
    marked = [
        (user.position(shard), Outcome.FAILED if row in stored else Outcome.PASSED)
        for row, user in enumerate(page.users)
    ]
    first, done.last = _ends(page.raw)
    done.first = first if done.first < 0 else done.first
    done.found += len(page.raw)
    done.records += len(page.users)
    done.runs = joined([*done.runs, *runs(marked)])


def _store(
    dependencies: HydrateDependencies, origin: str, found: tuple[DeadLetter, bytes]
) -> tuple[str, bool]:
    stored = failure(*found, origin)
    return stored.key, put(dependencies.s3, dependencies.bucket, stored)


def _dead_letter(dead_letter: Range, record: Record, failing: Failure | None) -> DeadLetter:
    """Build the dead letter of a single record."""
    return DeadLetter(
        kind=KIND,
        version=VERSION,
        consumer=dead_letter.consumer,
        stream=dead_letter.stream,
        shard=dead_letter.shard,
        sequence=record.sequence_number,
        sub=record.sub_sequence_number,
        partition_key=record.partition_key,
        arrived=record.arrived,
        event=failing.event if failing else None,
        schema=failing.schema if failing else None,
        stage=failing.stage if failing else DELIVERY,
        code=failing.code.value if failing else DELIVERY_FAILED,
        reason=failing.reason if failing else dead_letter.detail,
        segment=token(Position(dead_letter.shard, dead_letter.first)),
    )


def _record(dead_letter: Range, done: _Read, reader: Reader) -> DeadLetterRecord:
    state, reason = _state(dead_letter, done, reader)
    return record_of(
        dead_letter, state, found=done.found, records=done.records, runs=done.runs, reason=reason
    )


def _state(dead_letter: Range, done: _Read, reader: Reader) -> tuple[State, str]:
    """Compare the range with what was found. Its size may count Kinesis records or user records."""
    if not done.found:
        if not reader.has_left(dead_letter.first):
            raise NotThereError(
                f"{dead_letter.shard} has no records {dead_letter.first} to {dead_letter.last}"
            )
        return State.EXPIRED, "its records have expired from the stream"
    if done.first > int(dead_letter.first):
        return (
            State.PARTIAL,
            f"{done.found} of {dead_letter.size} records are left, the first have expired from the stream",
        )
    if done.last < int(dead_letter.last):
        return (
            State.PARTIAL,
            f"{done.found} of {dead_letter.size} records were found, the last one is missing",
        )
    if max(done.found, done.records) < dead_letter.size:
        return (
            State.PARTIAL,
            f"{done.found} records are in the range, the dead letter names {dead_letter.size}",
        )
    return State.HYDRATED, ""
