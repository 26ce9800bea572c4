"""Dead letters of pipes and functions: each names a range of records, which is read whole and narrowed."""

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
from stream_app.recovery.hydrate.narrow import Judge, Judged, Run, joined, lenient, runs
from stream_app.recovery.hydrate.results import LetterRecord, State, letter_key, put_record, record_of
from stream_app.recovery.hydrate.shapes import Range
from stream_app.recovery.store import failure, put
from stream_app.recovery.stream.read import RawRecord, user_records
from stream_app.recovery.stream.runs import Reader, number

DELIVERY, DELIVERY_FAILED = "delivery", "DELIVERY_FAILED"
# Small ranges are read first and then stored side by side: so many, and so many bytes of them, are held at a time.
_AT_ONCE, _HELD_BYTES = 100, 8 * 1_048_576
_SMALL_PAGES = 2

Sent = tuple[int, Range]


class NotThereError(Exception):
    """The shard never held such a range: the letter is wrong, or not about this stream."""


class _Page(NamedTuple):
    """A page of a range: Kinesis records, the user records in them, and which rows of these are guilty."""

    raw: Sequence[RawRecord]
    users: Sequence[Record]
    guilty: Mapping[int, Failure]


@dataclass(slots=True)
class _Case:
    """A range to store. `pages` may be asked for twice; `error` says why it cannot be stored now."""

    at: int
    letter: Range
    reader: Reader
    pages: Callable[[], Iterable[_Page]]
    narrowed: bool
    size: int = 0
    error: str = ""


@dataclass(slots=True)
class _Read:
    """A range as it was found: the ends that are there, Kinesis records, user records, and what became of each."""

    first: int = -1
    last: int = -1
    found: int = 0
    records: int = 0
    runs: list[Run] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    @property
    def guilty(self) -> bool:
        """Whether any record was stored as a failure."""
        return any(run.verdict == Judged.FAILED for run in self.runs)


def hydrate_ranges(letters: Sequence[Sent], dependencies: HydrateDependencies) -> Iterator[Result]:
    """Store the failures of ranges, and a record of each with the others marked as innocent; a result for each.

    The guilty ones are those that fail in the pipeline. Where none does, the fault was not the records' (the
    target was down, say), and all of them are stored, as DELIVERY_FAILED. Safe to repeat: the same objects.
    Whatever goes wrong with one letter makes that one wait. Lazy: holds a few pages at a time.
    """
    ordered = sorted(
        letters, key=lambda sent: (sent[1].arn, sent[1].shard, int(sent[1].first), int(sent[1].last))
    )
    for (arn, shard), members in groupby(ordered, key=lambda sent: (sent[1].arn, sent[1].shard)):
        some = list(members)
        most = max(letter.size for _, letter in some)
        reader = Reader(dependencies.stream_client, arn, shard, dependencies.page_for(len(some), most))
        yield from _of_shard(some, reader, dependencies)


def _of_shard(letters: Sequence[Sent], reader: Reader, dependencies: HydrateDependencies) -> Iterator[Result]:
    # The pool is for the ranges: what runs in it must not wait for it.
    alone = dataclasses.replace(dependencies, threads=None)
    held: list[_Case] = []
    for at, letter in letters:
        case = _prepared(at, letter, reader, dependencies)
        if case.size < 0:
            yield _finished(dependencies, case)
            continue
        held.append(case)
        if len(held) >= _AT_ONCE or sum(one.size for one in held) > _HELD_BYTES:
            yield from dependencies.each(partial(_finished, alone), held)
            held = []
    yield from dependencies.each(partial(_finished, alone), held)


def _prepared(at: int, letter: Range, reader: Reader, dependencies: HydrateDependencies) -> _Case:
    """A small range is read and judged, its size in bytes known; a large one, of size -1, is read as it is stored."""
    case = _Case(at, letter, reader, lambda: (), narrowed=False)
    if dependencies.hurried:
        case.error = "no time was left for it"
        return case
    try:
        judge = dependencies.judge()
        case.narrowed = judge is not lenient
        pages = _judged(letter, reader, judge)
        first = list(islice(pages, _SMALL_PAGES + 1))
    except Exception as error:
        # Whatever it is, this letter alone waits: it stays in its queue and comes again.
        case.error = why(error)
        return case
    if len(first) > _SMALL_PAGES:
        case.pages = _once(chain(first, pages), partial(_judged, letter, reader, judge))
        case.size = -1
        return case
    case.pages = lambda: first
    case.size = sum(len(user.data) for page in first for user in page.users)
    return case


def _once(first: Iterable[_Page], again: Callable[[], Iterable[_Page]]) -> Callable[[], Iterable[_Page]]:
    """What was begun, and after that the same from the beginning."""
    begun = [first]
    return lambda: begun.pop() if begun else again()


def _judged(letter: Range, reader: Reader, judge: Judge) -> Iterator[_Page]:
    trial = judge()
    for raw in _pages(letter, reader):
        users = [user for record in raw for user in user_records(dict(record))[0]]
        yield _Page(raw, users, trial(users))


def _pages(letter: Range, reader: Reader) -> Iterator[Sequence[RawRecord]]:
    """What the letter brought along, if that is all of it; else what the stream holds."""
    carried = letter.carried
    if carried and len(carried) >= letter.size and _ends(carried) == (int(letter.first), int(letter.last)):
        yield carried
        return
    nothing = True
    for records in reader.run(letter.first, letter.last, (letter.arrived, letter.arrived_last)):
        nothing = False
        yield records
    if nothing and carried:
        yield carried


def _ends(records: Sequence[RawRecord]) -> tuple[int, int]:
    return number(records[0]), number(records[-1])


def _finished(dependencies: HydrateDependencies, case: _Case) -> Result:
    letter = case.letter
    if case.error:
        return Result(case.at, letter, State.WAITING, case.error)
    try:
        done = _stored(case, dependencies, everything=not case.narrowed)
        if done.found and not done.guilty:
            done = _stored(case, dependencies, everything=True)
        record = put_record(
            dependencies.s3, dependencies.bucket, letter_key(letter), _record(letter, done, case.reader)
        )
    except Exception as error:
        return Result(case.at, letter, State.WAITING, why(error))
    return Result(case.at, letter, record.state, record.reason, done.written, done.kept)


def _stored(case: _Case, dependencies: HydrateDependencies, *, everything: bool) -> _Read:
    """Store what is guilty, or everything."""
    done, letter = _Read(), case.letter
    origin = letter_key(letter)
    for page in case.pages():
        chosen = [row for row in range(len(page.users)) if everything or row in page.guilty]
        found = [
            (_letter(letter, page.users[row], page.guilty.get(row)), page.users[row].data) for row in chosen
        ]
        for key, new in dependencies.each(partial(_store, dependencies, origin), found):
            (done.written if new else done.kept).append(key)
        _count(done, page, set(chosen), letter.shard)
    return done


def _count(done: _Read, page: _Page, stored: set[int], shard: str) -> None:
    marked = [
        (user.position(shard), Judged.FAILED if row in stored else Judged.INNOCENT)
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


def _letter(letter: Range, record: Record, guilty: Failure | None) -> DeadLetter:
    """The dead letter that this one record would have had."""
    return DeadLetter(
        kind=KIND,
        version=VERSION,
        consumer=letter.consumer,
        stream=letter.stream,
        shard=letter.shard,
        sequence=record.sequence_number,
        sub=record.sub_sequence_number,
        partition_key=record.partition_key,
        arrived=record.arrived,
        event=guilty.event if guilty else None,
        schema=guilty.schema if guilty else None,
        stage=guilty.stage if guilty else DELIVERY,
        code=guilty.code.value if guilty else DELIVERY_FAILED,
        reason=guilty.reason if guilty else letter.detail,
        segment=token(Position(letter.shard, letter.first)),
    )


def _record(letter: Range, done: _Read, reader: Reader) -> LetterRecord:
    state, reason = _state(letter, done, reader)
    return record_of(letter, state, found=done.found, records=done.records, runs=done.runs, reason=reason)


def _state(letter: Range, done: _Read, reader: Reader) -> tuple[State, str]:
    """Whether all of the range was there. Its count may be of Kinesis records, or of the user records in them."""
    if not done.found:
        if not reader.has_left(letter.first):
            raise NotThereError(f"{letter.shard} has no records {letter.first} to {letter.last}")
        return State.EXPIRED, "its records have left the stream"
    if done.first > int(letter.first):
        return (
            State.PARTIAL,
            f"{done.found} of {letter.size} records are left, the first have left the stream",
        )
    if done.last < int(letter.last):
        return State.PARTIAL, f"{done.found} of {letter.size} records were found, the last one is not there"
    if max(done.found, done.records) < letter.size:
        return State.PARTIAL, f"{done.found} records lie in the range, the letter speaks of {letter.size}"
    return State.HYDRATED, ""
