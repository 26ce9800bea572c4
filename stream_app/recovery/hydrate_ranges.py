"""Dead letters of pipes and functions: each names a range of records, which is read whole and narrowed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from stream_app.record import Failure, Position, Record
from stream_app.recovery.dead_letters import KIND, VERSION, DeadLetter
from stream_app.recovery.hydrate_world import Result, World, why
from stream_app.recovery.narrow import Run, Trial, Verdict, joined, lenient, runs
from stream_app.recovery.shapes import Range, RawRecord
from stream_app.recovery.store import failure, put
from stream_app.recovery.store_letters import LetterRecord, State, letter_key, put_record, record_of
from stream_app.recovery.stream import user_records
from stream_app.recovery.stream_runs import Reader, number
from stream_app.sinks.segment import token

DELIVERY, DELIVERY_FAILED = "delivery", "DELIVERY_FAILED"
Pages = Iterator[Sequence[RawRecord]]


class NotThereError(Exception):
    """The shard never held such a range: the letter is wrong, or not about this stream."""


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
        return any(run.verdict == Verdict.FAILED for run in self.runs)


class _Page(NamedTuple):
    """A page's user records, and how many Kinesis records they lay in."""

    raw: Sequence[RawRecord]
    users: Sequence[Record]


def hydrate_range(at: int, letter: Range, reader: Reader, world: World) -> Result:
    """Store the failures of a range, and its record with the others marked as innocent.

    The guilty ones are those that fail in the pipeline. Where none does, the fault was not the records' (the
    target was down, say), and all of them are stored, as DELIVERY_FAILED. Holds a page at a time. Safe to repeat:
    the same objects. A world's error makes the letter wait.
    """
    try:
        if world.hurried:
            return Result(at, letter, State.WAITING, "no time was left for it")
        done = _narrowed(letter, reader, world)
        record = put_record(world.s3, world.bucket, letter_key(letter), _record(letter, done, reader))
    except Exception as error:
        # Whatever it is, this letter alone waits: it stays in its queue and comes again.
        return Result(at, letter, State.WAITING, why(error))
    return Result(at, letter, record.state, record.reason, done.written, done.kept)


def _narrowed(letter: Range, reader: Reader, world: World) -> _Read:
    """Read and judge; a second time, without judging, when the pipeline has nothing against any of them."""
    done = _read(letter, _pages(letter, reader), world.judge()(), world, keep_innocent=False)
    if done.found and not done.guilty:
        return _read(letter, _pages(letter, reader), lenient(), world, keep_innocent=True)
    return done


def _pages(letter: Range, reader: Reader) -> Pages:
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


def _read(letter: Range, pages: Pages, trial: Trial, world: World, *, keep_innocent: bool) -> _Read:
    done = _Read()
    for raw in pages:
        users = [user for record in raw for user in user_records(dict(record))[0]]
        _page(letter, _Page(raw, users), trial(users), done, world, keep_innocent=keep_innocent)
    return done


def _page(
    letter: Range,
    page: _Page,
    guilty: Mapping[int, Failure],
    done: _Read,
    world: World,
    *,
    keep_innocent: bool,
) -> None:
    chosen = [row for row in range(len(page.users)) if keep_innocent or row in guilty]
    letters = [(_letter(letter, page.users[row], guilty.get(row)), page.users[row].data) for row in chosen]
    for key, new in world.each(partial(_store, world, letter_key(letter)), letters):
        (done.written if new else done.kept).append(key)
    stored = set(chosen)
    marked = [
        (user.position(letter.shard), Verdict.FAILED if row in stored else Verdict.INNOCENT)
        for row, user in enumerate(page.users)
    ]
    first, last = _ends(page.raw)
    done.first = first if done.first < 0 else done.first
    done.last = last
    done.found += len(page.raw)
    done.records += len(page.users)
    done.runs = joined([*done.runs, *runs(marked)])


def _store(world: World, origin: str, found: tuple[DeadLetter, bytes]) -> tuple[str, bool]:
    stored = failure(*found, origin)
    return stored.key, put(world.s3, world.bucket, stored)


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
