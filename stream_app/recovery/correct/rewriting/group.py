"""The corrections of one file: one read of it, one calculation, one rewrite."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa

from stream_app.errors import TransientError
from stream_app.model.record import Batch, Position, Record
from stream_app.pipeline.registry import Codec, Registry
from stream_app.pipeline.sensor_checks import FLAG
from stream_app.recovery.correct.calculation.past import Own, ShardFiles, noted, own_fields
from stream_app.recovery.correct.calculation.payload import MayRead, Payloads, Wanted
from stream_app.recovery.correct.calculation.recalculate import ImpossibleError, decoded, replacements
from stream_app.recovery.correct.history import Done, Entry, History, Request
from stream_app.recovery.correct.request import EarlyError
from stream_app.recovery.correct.rewriting.cases import Case, Corrected, Known, Replaced, Solved, solve
from stream_app.recovery.correct.rewriting.files import Files
from stream_app.recovery.correct.rewriting.latest import Change, Latest
from stream_app.recovery.correct.rewriting.segment import TRIES, File, read, replace
from stream_app.sinks.parquet import field_name, stored_name

_GONE = "it is not among the stored rows"
_NO_PAYLOAD = (
    "its payload is neither in the stream nor in the failure store, and its row lacks fields of the schema"
)
_NOT_NOTED = "a correction in its file is not noted yet"

Outcome = Done | Exception


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What corrections read and write. `now_ms` is the clock."""

    s3: Any
    bucket: str
    registry: Registry
    history: History
    payloads: Payloads
    latest: Latest
    max_bytes: int
    now_ms: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Batched:
    """What a batch of corrections shares: listings, leave to read the stream, and what was done so far.

    `before` holds what corrections that the history does not know yet replaced; of the positions in `decided` it is
    known that they were corrected or cannot be. Threads may share it.
    """

    files: Files
    may_read: MayRead
    before: dict[Position, Mapping[str, Any]] = field(default_factory=dict)
    decided: set[Position] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Group:
    """The requests for rows of one file, in the order of their positions, each position once."""

    of: Dependencies
    batch: Batched
    codec: Codec
    key: str
    requests: Sequence[Request]

    @property
    def order(self) -> tuple[int, int]:
        """Where it stands among the groups of its shard."""
        return self.requests[0].position.order

    def read(self) -> File | None:
        """The file as it is now."""
        return read(self.of.s3, self.of.bucket, self.key)

    def correct(self, file: File | None) -> list[Outcome]:
        """Correct them all, `file` as it was read; what became of each. Safe to repeat.

        When somebody else changes the file meanwhile, it is done anew. Raises TransientError when others keep
        getting in between, and what boto3 raises.
        """
        for _ in range(TRIES):
            if file is None:
                return [ImpossibleError(_GONE) for _ in self.requests]
            found = self._attempt(file)
            if found is not None:
                return found
            file = self.read()
        raise TransientError(
            f"s3://{self.of.bucket}/{self.key} changed {TRIES} times while it was being corrected"
        )

    def _attempt(self, file: File) -> list[Outcome] | None:
        """None when the file is no longer what was read."""
        shard_files = ShardFiles(
            self.batch.files, self.codec, file.key, self.batch.files.keep(file, self.codec)
        )
        solved: dict[Position, Solved] = {one.position: ImpossibleError(_GONE) for one in self.requests}
        cases = self._cases(file, self._owns(file), solved)
        if cases:
            cases, known, unnoted = self._with_past(file, shard_files, cases)
            solved |= {case.position: EarlyError(_NOT_NOTED) for case in unnoted}
            solved |= solve(file.table, self.codec, known, cases) if cases else {}
        made = [(case, one) for case in cases if isinstance(one := solved[case.position], Corrected)]
        now = self._overwrite(file, made)
        if now is None:
            return None
        if now is not file:
            self.batch.files.replaced(now, self.codec)
        done = self._done(shard_files, file, now, made)
        return [self._outcome(done.get(one.position), solved[one.position], one) for one in self.requests]

    def _outcome(self, done: Done | None, solved: Solved, request: Request) -> Outcome:
        if not isinstance(solved, EarlyError):
            self.batch.decided.add(request.position)
        if done is not None:
            self.batch.before[request.position] = done.before
            return done
        return EarlyError(_NOT_NOTED) if isinstance(solved, Corrected) else solved

    def _owns(self, file: File) -> list[tuple[Own, str, str | None]]:
        """The rows that are there, each with its partition key and the check that it tripped."""
        positions = [request.position for request in self.requests]
        there = [
            (position, row)
            for position, row in zip(positions, file.rows(positions), strict=True)
            if row is not None
        ]
        part = file.table.take(pa.array([row for _, row in there], pa.int64()))
        keys = part[stored_name(self.codec.event.key, self.codec.event.name)].to_pylist()
        arrived = part["arrived"].cast(pa.int64()).to_pylist()
        flags = part[FLAG].to_pylist() if FLAG in part.column_names else [None] * len(part)
        columns = zip(there, keys, arrived, part["partition_key"].to_pylist(), flags, strict=True)
        return [
            (Own(position, row, str(key), at), partition_key, flag)
            for (position, row), key, at, partition_key, flag in columns
        ]

    def _cases(
        self, file: File, owns: Sequence[tuple[Own, str, str | None]], solved: dict[Position, Solved]
    ) -> list[Case]:
        """What came of each row, and what replaces it; those that have neither are `solved`."""
        wanted = [Wanted(own.position, key, own.arrived, own.row) for own, key, _ in owns]
        records = self.of.payloads(wanted, self.batch.may_read) if wanted else []
        there = [record for record in records if record is not None]
        fields = iter(
            decoded(there, self.codec.event.name, self.of.registry, self.of.max_bytes) if there else []
        )
        cases = []
        for (own, key, flag), record in zip(owns, records, strict=True):
            found = own_fields(file.table.slice(own.row, 1), self.codec) if record is None else next(fields)
            if found is None or isinstance(found, str):
                solved[own.position] = ImpossibleError(found or _NO_PAYLOAD)
                continue
            came = record or Record(b"", key, own.position.sequence, own.arrived, own.position.sub)
            cases.append(Case(own, came, found, record is None, _replaced(found, flag, self.codec)))
        return cases

    def _with_past(
        self, file: File, shard_files: ShardFiles, cases: Sequence[Case]
    ) -> tuple[list[Case], Known, list[Case]]:
        """The cases with their past, what the history knows of it, and the cases that must wait for the history.

        The history is read after the rows, so that it knows of every correction that they hold and that is over.
        """
        every = any(_moves(case.replaced, shard_files) for case in cases)
        pasts = shard_files.before([case.own for case in cases], every=every)
        entries = self._entries(file, cases, pasts)
        before = {**self.batch.before, **noted(entries)}
        if not every and any(shard_files.time in changes for changes in before.values()):
            pasts = shard_files.before([case.own for case in cases], every=True)
            entries = self._entries(file, cases, pasts)
            before = {**self.batch.before, **noted(entries)}
        decided = self.batch.decided | {case.position for case in cases}
        in_progress = {
            one.request.position for one in entries if one.done is None and one.refusal is None
        } - decided
        cases = [dataclasses.replace(case, earlier=past) for case, past in zip(cases, pasts, strict=True)]
        rebuilt = [case for case in cases if case.rebuilt]
        unnoted = [] if not rebuilt or self._all_noted(file, entries) else rebuilt
        in_progress |= {case.position for case in unnoted}
        kept = [case for case in cases if not (unnoted and case.rebuilt)]
        return kept, Known(before, frozenset(in_progress)), unnoted

    def _entries(self, file: File, cases: Sequence[Case], pasts: Sequence[Sequence[Any]]) -> list[Entry]:
        """The history from the oldest row to the last one; of the whole file where a case was rebuilt."""
        first, last = file.ends(cases[0].position.shard)
        oldest = [past[0].position for past in pasts if past] + [cases[0].position]
        oldest += [first] if any(case.rebuilt for case in cases) else []
        last = last if any(case.rebuilt for case in cases) else cases[-1].position
        start = min(oldest, key=lambda position: position.order)
        return list(self.of.history.entries(self.requests[0].consumer, start, last))

    def _all_noted(self, file: File, entries: Sequence[Entry]) -> bool:
        """Whether every correction of the file is known: to the history, or made in this batch.

        Else a row may be one that a process corrected that died before its note: it must not be corrected twice.
        """
        made = {e.request.position for e in entries if e.done and e.request.event == self.codec.event.name}
        made |= set(self.batch.before)
        return sum(row is not None for row in file.rows(sorted(made))) == file.corrections

    def _overwrite(self, file: File, made: Sequence[tuple[Case, Corrected]]) -> File | None:
        """The file as it is then; None when it is no longer what was read."""
        changed = [(case.own.row, one.row) for case, one in made if not one.there]
        if not changed:
            return file
        return replace(self.of.s3, self.of.bucket, file, changed)

    def _done(
        self, shard_files: ShardFiles, file: File, now: File, made: Sequence[tuple[Case, Corrected]]
    ) -> dict[Position, Done]:
        event, at = self.codec.event, self.of.now_ms()
        changes = [Change(case.own.device, case.position, self._fields(one.after)) for case, one in made]
        latest = self.of.latest(event, changes)
        done = {}
        for (case, one), is_latest in zip(made, latest, strict=True):
            affected, until = shard_files.after(case.own, at)
            done[case.position] = Done(
                key=file.key,
                version_before=file.version_before(case.own.row, case.position)
                if one.there
                else file.version,
                version=file.version if one.there else now.version,
                before=_as_json(one.before),
                after=_as_json(one.after),
                affected=affected,
                affects_until=until,
                rebuilt=case.rebuilt,
                latest=is_latest,
            )
        return done

    def _fields(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        names = {each.name for each in self.codec.schema.fields}
        return {field_name(column, self.codec.event.name, names): value for column, value in columns.items()}


def _replaced(fields: Batch, flag: str | None, codec: Codec) -> Replaced:
    try:
        return replacements(fields, flag, codec)
    except ImpossibleError as error:
        return error


def _moves(replaced: Replaced, shard_files: ShardFiles) -> bool:
    window = shard_files.codec.event.window
    return window is not None and not isinstance(replaced, ImpossibleError) and window.time in replaced


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: v.isoformat() if isinstance(v, datetime) else v for name, v in values.items()}
