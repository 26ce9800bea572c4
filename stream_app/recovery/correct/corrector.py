"""Makes corrections: finds files and payloads, recalculates rows, overwrites files.

A correction waits until its segment is checkpointed. The requests for one file form a group: one read, one
calculation, one rewrite. Groups that share a device are corrected in the order of their positions, because a later
one is calculated from the corrected values of an earlier one; other groups are corrected in parallel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from stream_app.aws import objects
from stream_app.aws.clients import ClientFactory
from stream_app.model.record import Position
from stream_app.model.segment import position_from_token
from stream_app.pipeline.registry import Registry
from stream_app.recovery.correct.calculation.payload import (
    MayRead,
    first_of,
    from_store,
    from_stream,
    max_row_gap,
)
from stream_app.recovery.correct.calculation.recalculate import UncorrectableError
from stream_app.recovery.correct.history import Correction, Entry, History, Request
from stream_app.recovery.correct.limits import unlimited
from stream_app.recovery.correct.request import NotReadyError
from stream_app.recovery.correct.rewriting.files import EventFiles, RowsCache
from stream_app.recovery.correct.rewriting.group import BatchState, Dependencies, FileGroup, Outcome
from stream_app.recovery.correct.rewriting.latest import LatestChange, latest_in, no_latest_values
from stream_app.recovery.correct.rewriting.segment import (
    MAX_ROWS,
    EventFile,
    holds_values,
    overwrite_row,
    read_file,
    recorded_row,
)
from stream_app.settings import Settings
from stream_app.sinks.parquet import field_name, stored_name

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_s3 import S3Client

_SHARD_END = "SHARD_END"
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


def committed(
    dynamodb: DynamoDBClient, s3: S3Client, bucket: str, application: str
) -> Callable[[Position], bool]:
    """Return a function that tells whether a position is at or before its shard's checkpoint.

    Checkpoints are read from KCL's lease table, which is named `application`. KCL deletes the lease of a closed
    shard once its child shards are being processed; then the snapshot of the shard's end shows that it is finished.
    """

    def is_committed(position: Position) -> bool:
        answer = dynamodb.get_item(
            TableName=application, Key={"leaseKey": {"S": position.shard}}, ConsistentRead=True
        )
        if "Item" not in answer:
            return objects.head(s3, bucket, f"state/{application}/{position.shard}/{_SHARD_END}") is not None
        sequence = answer["Item"].get("checkpoint", {}).get("S", "")
        sub = int(answer["Item"].get("checkpointSubSequenceNumber", {}).get("N", "0"))
        if sequence == _SHARD_END:
            return True
        return bool(sequence.isdigit()) and position.order <= (int(sequence), sub)

    return is_committed


def _unknown_event(request: Request) -> str:
    return f"unknown event type {request.event!r}"


@dataclass(frozen=True, slots=True)
class CorrectorClients:
    """The boto3 clients of a corrector."""

    kinesis: KinesisClient
    s3: S3Client
    dynamodb: DynamoDBClient


@dataclass(frozen=True, slots=True)
class CorrectorOptions:
    """The application whose records a corrector corrects.

    `max_bytes` is the maximum size of a payload. If there is a `latest_table`, the latest values in it are
    corrected as well. `reads_per_second` is how many times per second a shard may be read.
    """

    stream: str
    bucket: str
    application: str
    max_bytes: int
    latest_table: str = ""
    reads_per_second: float = 1.0

    @classmethod
    def of(cls, settings: Settings, reads_per_second: float = 1.0) -> CorrectorOptions:
        """Return the options of the application that the settings describe."""
        return cls(
            stream=settings.stream,
            bucket=settings.bucket,
            application=settings.application,
            max_bytes=settings.max_record_bytes,
            latest_table=settings.latest_table,
            reads_per_second=reads_per_second,
        )


def make_corrector(
    clients: CorrectorClients,
    options: CorrectorOptions,
    registry: Registry,
    history: History,
    now_ms: Callable[[], int],
) -> Corrector:
    """Return a corrector of one application.

    It reads payloads from the stream or else the failure store, and checkpoints from the lease table.
    """
    s3, bucket, application, table = clients.s3, options.bucket, options.application, options.latest_table
    stream = from_stream(clients.kinesis, options.stream, max_row_gap(options.reads_per_second))
    dependencies = Dependencies(
        s3=s3,
        bucket=bucket,
        registry=registry,
        history=history,
        payloads=first_of(stream, from_store(s3, bucket, application)),
        latest=latest_in(clients.dynamodb, table) if table else no_latest_values,
        max_bytes=options.max_bytes,
        now_ms=now_ms,
    )
    return Corrector(dependencies, committed(clients.dynamodb, s3, bucket, application))


def corrector_of(
    settings: Settings,
    client: ClientFactory,
    registry: Registry,
    history: History,
    now_ms: Callable[[], int],
    reads_per_second: float = 1.0,
) -> Corrector:
    """Return the corrector of the application that the settings describe."""
    clients = CorrectorClients(client("kinesis"), client("s3"), client("dynamodb"))
    options = CorrectorOptions.of(settings, reads_per_second)
    return make_corrector(clients, options, registry, history, now_ms)
