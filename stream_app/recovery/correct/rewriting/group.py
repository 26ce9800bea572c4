"""Corrects several rows of one file: one read, one calculation, one rewrite."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from stream_app.errors import TransientError
from stream_app.model.record import Batch, Position, Record
from stream_app.pipeline.registry import Codec
from stream_app.pipeline.sensor_checks import FLAG
from stream_app.recovery.correct.calculation.past import (
    EarlierRow,
    RowContext,
    TargetRow,
    previous_values,
    row_fields,
)
from stream_app.recovery.correct.calculation.payload import PayloadRequest
from stream_app.recovery.correct.calculation.recalculate import (
    UncorrectableError,
    decode_payloads,
    replacement_columns,
)
from stream_app.recovery.correct.history_entry import Correction, Entry, Request
from stream_app.recovery.correct.request import NotReadyError
from stream_app.recovery.correct.rewriting.cases import (
    Case,
    CaseResult,
    Corrected,
    HistoryState,
    Replaced,
    correct_cases,
)
from stream_app.recovery.correct.rewriting.dependencies import BatchState, Dependencies
from stream_app.recovery.correct.rewriting.latest import LatestChange
from stream_app.recovery.correct.rewriting.segment import MAX_ATTEMPTS, EventFile, overwrite_rows, read_file
from stream_app.sinks.parquet import field_name, stored_name

_NOT_STORED = "its segment does not hold its row"
_NO_PAYLOAD = (
    "its payload is neither in the stream nor in the failure store, and its row lacks fields of the schema"
)
_NOT_RECORDED = "a correction in its file is not recorded yet"

Outcome = Correction | Exception


@dataclass(frozen=True, slots=True)
class FileGroup:
    """The requests for rows of one file, in the order of their positions, each position once."""

    dependencies: Dependencies
    batch: BatchState
    codec: Codec
    key: str
    requests: Sequence[Request]

    @property
    def order(self) -> tuple[int, int]:
        """The sort key of the group among the groups of its shard."""
        return self.requests[0].position.order

    def read(self) -> EventFile | None:
        """Read the current version of the file."""
        return read_file(self.dependencies.s3, self.dependencies.bucket, self.key)

    def correct(self, file: EventFile | None) -> list[Outcome]:
        """Correct the rows, given the `file` as it was read; return the outcome of each. Idempotent.

        Starts again when another process changes the file meanwhile. Raises TransientError after MAX_ATTEMPTS such
        changes, and what boto3 raises.
        """
        for _ in range(MAX_ATTEMPTS):
            if file is None:
                return [UncorrectableError(_NOT_STORED) for _ in self.requests]
            found = self._attempt(file)
            if found is not None:
                return found
            file = self.read()
        raise TransientError(
            f"s3://{self.dependencies.bucket}/{self.key} changed {MAX_ATTEMPTS} times while it was being corrected"
        )

    def _attempt(self, file: EventFile) -> list[Outcome] | None:
        """Return the outcomes, or None when the file is no longer the version that was read."""
        context = RowContext(
            self.batch.files, self.codec, file.key, self.batch.files.cache_rows(file, self.codec)
        )
        results: dict[Position, CaseResult] = {
            one.position: UncorrectableError(_NOT_STORED) for one in self.requests
        }
        cases = self._cases(file, self._targets(file), results)
        if cases:
            cases, known, unrecorded = self._with_past(file, context, cases)
            results |= {case.position: NotReadyError(_NOT_RECORDED) for case in unrecorded}
            results |= correct_cases(file.table, self.codec, known, cases) if cases else {}
        corrected = [(case, one) for case in cases if isinstance(one := results[case.position], Corrected)]
        written = self._overwrite(file, corrected)
        if written is None:
            return None
        if written is not file:
            self.batch.files.update_listing(written, self.codec)
        done = self._corrections(context, file, written, corrected)
        return [self._outcome(done.get(one.position), results[one.position], one) for one in self.requests]

    def _outcome(self, done: Correction | None, result: CaseResult, request: Request) -> Outcome:
        if not isinstance(result, NotReadyError):
            self.batch.decided.add(request.position)
        if done is not None:
            self.batch.before[request.position] = done.before
            return done
        return NotReadyError(_NOT_RECORDED) if isinstance(result, Corrected) else result

    def _targets(self, file: EventFile) -> list[tuple[TargetRow, str, str | None]]:
        """Return the rows in the file, each with its partition key and the check that flagged it."""
        positions = [request.position for request in self.requests]
        stored_rows = [
            (position, row)
            for position, row in zip(positions, file.rows(positions), strict=True)
            if row is not None
        ]
        part = file.table.take(pa.array([row for _, row in stored_rows], pa.int64()))
        keys = part[stored_name(self.codec.event.key, self.codec.event.name)].to_pylist()
        arrived = part["arrived"].cast(pa.int64()).to_pylist()
        flags = part[FLAG].to_pylist() if FLAG in part.column_names else [None] * len(part)
        columns = zip(stored_rows, keys, arrived, part["partition_key"].to_pylist(), flags, strict=True)
        return [
            (TargetRow(position, row, str(key), at), partition_key, flag)
            for (position, row), key, at, partition_key, flag in columns
        ]

    def _cases(
        self,
        file: EventFile,
        targets: Sequence[tuple[TargetRow, str, str | None]],
        results: dict[Position, CaseResult],
    ) -> list[Case]:
        """Decode each row's payload and calculate its replacement; add those that fail to `results`."""
        requests = [
            PayloadRequest(target.position, key, target.arrived, target.row) for target, key, _ in targets
        ]
        records = self.dependencies.payloads(requests, self.batch.may_read) if requests else []
        available = [record for record in records if record is not None]
        fields = iter(
            decode_payloads(
                available, self.codec.event.name, self.dependencies.registry, self.dependencies.max_bytes
            )
            if available
            else []
        )
        cases = []
        for (target, key, flag), record in zip(targets, records, strict=True):
            found = (
                row_fields(file.table.slice(target.row, 1), self.codec) if record is None else next(fields)
            )
            if found is None or isinstance(found, str):
                results[target.position] = UncorrectableError(found or _NO_PAYLOAD)
                continue
            source = record or Record(b"", key, target.position.sequence, target.arrived, target.position.sub)
            cases.append(Case(target, source, found, record is None, _replacement(found, flag, self.codec)))
        return cases

    def _with_past(
        self, file: EventFile, context: RowContext, cases: Sequence[Case]
    ) -> tuple[list[Case], HistoryState, list[Case]]:
        """Return the cases with their past, the history's state, and the cases that must wait for it.

        The history is read after the rows, so that it contains every finished correction that the rows hold.
        """
        all_rows = any(_moves(case.replaced, context) for case in cases)
        pasts = context.before([case.target for case in cases], all_rows=all_rows)
        entries = self._entries(file, cases, pasts)
        before = {**self.batch.before, **previous_values(entries)}
        if not all_rows and any(context.time in changes for changes in before.values()):
            pasts = context.before([case.target for case in cases], all_rows=True)
            entries = self._entries(file, cases, pasts)
            before = {**self.batch.before, **previous_values(entries)}
        decided = self.batch.decided | {case.position for case in cases}
        in_progress = {
            one.request.position for one in entries if one.done is None and one.refusal is None
        } - decided
        cases = [dataclasses.replace(case, earlier=past) for case, past in zip(cases, pasts, strict=True)]
        rebuilt = [case for case in cases if case.rebuilt]
        unrecorded = [] if not rebuilt or self._all_recorded(file, entries) else rebuilt
        in_progress |= {case.position for case in unrecorded}
        kept = [case for case in cases if not (unrecorded and case.rebuilt)]
        return kept, HistoryState(before, frozenset(in_progress)), unrecorded

    def _entries(
        self, file: EventFile, cases: Sequence[Case], pasts: Sequence[Sequence[EarlierRow]]
    ) -> list[Entry]:
        """Return the history from the oldest to the last row; of the whole file if a case was rebuilt."""
        first, last = file.ends(cases[0].position.shard)
        oldest = [past[0].position for past in pasts if past] + [cases[0].position]
        oldest += [first] if any(case.rebuilt for case in cases) else []
        last = last if any(case.rebuilt for case in cases) else cases[-1].position
        start = min(oldest, key=lambda position: position.order)
        return list(self.dependencies.history.entries(self.requests[0].consumer, start, last))

    def _all_recorded(self, file: EventFile, entries: Sequence[Entry]) -> bool:
        """Return whether every correction of the file is in the history or made in this batch.

        Otherwise a row may have been corrected by a process that crashed before recording it; it must not be
        corrected twice.
        """
        corrected = {
            e.request.position for e in entries if e.done and e.request.event == self.codec.event.name
        }
        corrected |= set(self.batch.before)
        return sum(row is not None for row in file.rows(sorted(corrected))) == file.corrections

    def _overwrite(self, file: EventFile, corrected: Sequence[tuple[Case, Corrected]]) -> EventFile | None:
        """Return the new version of the file; None when it is no longer the version that was read."""
        changed = [(case.target.row, one.row) for case, one in corrected if not one.already_stored]
        if not changed:
            return file
        return overwrite_rows(self.dependencies.s3, self.dependencies.bucket, file, changed)

    def _corrections(
        self,
        context: RowContext,
        file: EventFile,
        written: EventFile,
        corrected: Sequence[tuple[Case, Corrected]],
    ) -> dict[Position, Correction]:
        event, at = self.codec.event, self.dependencies.now_ms()
        changes = [
            LatestChange(case.target.device, case.position, self._fields(one.after))
            for case, one in corrected
        ]
        latest = self.dependencies.latest(event, changes)
        done = {}
        for (case, one), is_latest in zip(corrected, latest, strict=True):
            affected, until = context.after(case.target, at)
            done[case.position] = Correction(
                key=file.key,
                version_before=file.version_before(case.target.row, case.position)
                if one.already_stored
                else file.version,
                version=file.version if one.already_stored else written.version,
                before=_as_json(one.before),
                after=_as_json(one.after),
                affected=affected,
                affects_until=until,
                rebuilt=case.rebuilt,
                latest=is_latest,
            )
        return done

    def _fields(self, columns: Mapping[str, object]) -> dict[str, object]:
        names = {each.name for each in self.codec.schema.fields}
        return {field_name(column, self.codec.event.name, names): value for column, value in columns.items()}


def _replacement(fields: Batch, flag: str | None, codec: Codec) -> Replaced:
    try:
        return replacement_columns(fields, flag, codec)
    except UncorrectableError as error:
        return error


def _moves(replaced: Replaced, context: RowContext) -> bool:
    window = context.codec.event.window
    return window is not None and not isinstance(replaced, UncorrectableError) and window.time in replaced


def _as_json(values: Mapping[str, object]) -> dict[str, object]:
    return {name: v.isoformat() if isinstance(v, datetime) else v for name, v in values.items()}
