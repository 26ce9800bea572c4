"""Makes corrections: finds files and payloads, recalculates rows, overwrites files.

A correction waits until its segment is checkpointed. The requests for one file form a group: one read, one
calculation, one rewrite. Groups that share a device are corrected in the order of their positions, because a later
one is calculated from the corrected values of an earlier one; other groups are corrected in parallel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa

from stream_app.model.record import Position
from stream_app.model.segment import position_from_token
from stream_app.recovery.correct.calculation.payload import (
    MayRead,
)
from stream_app.recovery.correct.calculation.recalculate import UncorrectableError
from stream_app.recovery.correct.history_entry import Correction, Entry, Request
from stream_app.recovery.correct.limits import unlimited
from stream_app.recovery.correct.request import NotReadyError
from stream_app.recovery.correct.rewriting.dependencies import BatchState, Dependencies
from stream_app.recovery.correct.rewriting.files import EventFiles, RowsCache
from stream_app.recovery.correct.rewriting.group import FileGroup, Outcome
from stream_app.recovery.correct.rewriting.latest import LatestChange
from stream_app.recovery.correct.rewriting.segment import (
    MAX_ROWS,
    EventFile,
    holds_values,
    overwrite_row,
    read_file,
    recorded_row,
)
from stream_app.sinks.parquet import field_name, stored_name

# Files in memory at once, and threads that read and correct them.
_MAX_FILES, _THREADS = 16, 4


class _Read(NamedTuple):
    """A group and its file: None where it does not exist, or the exception that reading it raised."""

    group: FileGroup
    file: EventFile | Exception | None


class _Chain(NamedTuple):
    """Groups that share devices, in order."""

    devices: frozenset[tuple[str, str, str]]
    reads: Sequence[_Read]


@dataclass(frozen=True, slots=True)
class Corrector:
    """Makes corrections (`request.MakeCorrection`).

    `committed` tells whether a position is at or before its shard's checkpoint.
    """

    dependencies: Dependencies
    committed: Callable[[Position], bool]
    cache: RowsCache = field(default_factory=RowsCache)

    def __call__(self, request: Request) -> Correction:
        """Correct the row of the request's position. Idempotent.

        Raises NotReadyError while its segment is not checkpointed, UncorrectableError when it cannot be corrected,
        and what boto3 raises.
        """
        (outcome,) = self.correct_all([request])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def correct_all(self, requests: Sequence[Request], may_read: MayRead = unlimited) -> list[Outcome]:
        """Correct several rows; return for each what `__call__` returns or raises.

        Each position may occur once.
        """
        batch = BatchState(self._files(), may_read)
        outcomes: dict[Position, Outcome] = {}
        groups = self._groups(requests, batch, outcomes)
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="correct") as pool:
            for start in range(0, len(groups), _MAX_FILES):
                chunk = groups[start : start + _MAX_FILES]
                for corrected in pool.map(_correct, _chains(list(pool.map(self._read, chunk)))):
                    outcomes |= corrected
        return [outcomes[request.position] for request in requests]

    def reapply(self, entry: Entry) -> bool:
        """Write a recorded correction into its row again; return whether it was missing.

        Needed after a replay. Writes the recorded values: nothing is recalculated, and no payload is needed. Raises
        as `__call__` does, and UncorrectableError when the row holds neither the recorded original nor the
        corrected values.
        """
        request, done = entry.request, entry.done
        codec = self.dependencies.registry.codecs.get(request.event)
        if codec is None or done is None:
            raise UncorrectableError("no correction is recorded for it" if codec else _unknown_event(request))
        key = _Locator(self, self._files()).key(request)
        file = read_file(self.dependencies.s3, self.dependencies.bucket, key)
        at = None if file is None else file.row(request.position)
        if file is None or at is None:
            raise UncorrectableError("its segment does not hold its row")
        row = file.table.slice(at, 1)
        before, after = (recorded_row(values, row) for values in (done.before, done.after))
        written = overwrite_row(
            self.dependencies.s3, self.dependencies.bucket, key, request.position, before, after
        )
        if written is None:
            raise UncorrectableError(
                "its row holds neither the recorded original nor the recorded corrected values"
            )
        device = str(row[stored_name(codec.event.key, codec.event.name)][0].as_py())
        names = {each.name for each in codec.schema.fields}
        values = {field_name(name, request.event, names): v for name, v in after.to_pylist()[0].items()}
        self.dependencies.latest(codec.event, [LatestChange(device, request.position, values)])
        return not holds_values(row, after)

    def _files(self) -> EventFiles:
        return EventFiles(self.dependencies.s3, self.dependencies.bucket, self.cache)

    def _read(self, group: FileGroup) -> _Read:
        try:
            file = group.read()
            if file is not None:  # it also holds earlier and later rows that its neighbours need
                group.batch.files.cache_rows(file, group.codec)
            return _Read(group, file)
        except Exception as error:
            return _Read(group, error)

    def _groups(
        self, requests: Sequence[Request], batch: BatchState, outcomes: dict[Position, Outcome]
    ) -> list[FileGroup]:
        """Return the requests grouped by file, in the order of positions; add failures to `outcomes`."""
        locator = _Locator(self, batch.files)
        by_key: dict[tuple[str, str], list[Request]] = {}
        for request in sorted(requests, key=lambda item: item.position.order):
            try:
                if request.event not in self.dependencies.registry.codecs:
                    raise UncorrectableError(_unknown_event(request))
                by_key.setdefault((request.event, locator.key(request)), []).append(request)
            except Exception as error:  # an error affects this request only
                outcomes[request.position] = error
        codecs = self.dependencies.registry.codecs
        groups = [
            FileGroup(self.dependencies, batch, codecs[event], key, group_requests[start : start + MAX_ROWS])
            for (event, key), group_requests in by_key.items()
            for start in range(0, len(group_requests), MAX_ROWS)
        ]
        return sorted(groups, key=lambda group: group.order)


@dataclass(frozen=True, slots=True)
class _Locator:
    """Finds the file of a request's row; looks up each manifest and checkpoint once per batch."""

    corrector: Corrector
    files: EventFiles
    committed: dict[Position, bool] = field(default_factory=dict)

    def key(self, request: Request) -> str:
        """Return the file's key.

        Raises NotReadyError while its segment is not checkpointed, and UncorrectableError when it holds no row of
        the event.
        """
        position = request.position
        manifest = self.files.find(request.consumer, request.event, position, request.arrived)
        if manifest is None:
            raise NotReadyError("its segment is not stored yet")
        last = position_from_token(position.shard, manifest.last.position)
        if last not in self.committed:
            self.committed[last] = self.corrector.committed(last)
        if not self.committed[last]:
            raise NotReadyError("its segment is not checkpointed yet")
        if request.event not in manifest.stored:
            raise UncorrectableError("its segment does not hold its row")
        return manifest.stored[request.event].key


def _chains(reads: Sequence[_Read]) -> list[_Chain]:
    """Combine the reads that share a device of a shard into chains, in order."""
    chains: list[_Chain] = []
    for item in reads:
        devices, linked = _devices(item), [item]
        for chain in [chain for chain in chains if not devices.isdisjoint(chain.devices)]:
            chains.remove(chain)
            devices, linked = devices | chain.devices, [*chain.reads, *linked]
        chains.append(_Chain(devices, sorted(linked, key=lambda item: item.group.order)))
    return chains


def _devices(item: _Read) -> frozenset[tuple[str, str, str]]:
    """Return the devices of the rows to correct; for an unreadable file, its key instead."""
    group, event, shard = item.group, item.group.codec.event, item.group.requests[0].shard
    if not isinstance(item.file, EventFile):
        return frozenset({("", "", group.key)})
    rows = [row for row in item.file.rows([r.position for r in group.requests]) if row is not None]
    keys = item.file.table[stored_name(event.key, event.name)].take(pa.array(rows, pa.int64())).to_pylist()
    return frozenset((shard, event.name, str(key)) for key in keys)


def _correct(chain: _Chain) -> dict[Position, Outcome]:
    """Correct the groups of a chain in order; after a failure, the following groups must wait."""
    found: dict[Position, Outcome] = {}
    failed, corrected_keys = False, set[str]()
    for group, file in chain.reads:
        outcomes: Sequence[Outcome]
        if failed:
            waiting = NotReadyError("an earlier file of the device could not be corrected")
            outcomes = [waiting] * len(group.requests)
        else:
            try:
                if isinstance(file, Exception):
                    raise file
                outcomes = group.correct(file if group.key not in corrected_keys else group.read())
                corrected_keys.add(group.key)
            except Exception as error:
                outcomes, failed = [error] * len(group.requests), not isinstance(error, NotReadyError)
        found |= {request.position: one for request, one in zip(group.requests, outcomes, strict=True)}
    return found


def _unknown_event(request: Request) -> str:
    return f"unknown event type {request.event!r}"
