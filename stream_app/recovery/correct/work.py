"""How corrections are made: wait for the checkpoint, find files and payloads, recalculate, overwrite.

The requests of one file are one group: one read, one calculation, one rewrite. Groups that share a device follow one
another in the order of their positions, for a later one is calculated from what an earlier one stored; others go side
by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from stream_app.aws import objects
from stream_app.model.record import Position
from stream_app.model.segment import position_from_token
from stream_app.pipeline.registry import Registry
from stream_app.recovery.correct.calculation.payload import MayRead, first_of, from_store, from_stream, near
from stream_app.recovery.correct.calculation.recalculate import ImpossibleError
from stream_app.recovery.correct.history import Done, Entry, History, Request
from stream_app.recovery.correct.limits import unlimited
from stream_app.recovery.correct.request import EarlyError
from stream_app.recovery.correct.rewriting.files import Files, RowsCache
from stream_app.recovery.correct.rewriting.group import Batched, Dependencies, Group, Outcome
from stream_app.recovery.correct.rewriting.latest import Change, latest_in, nowhere
from stream_app.recovery.correct.rewriting.segment import MOST_ROWS, File, overwrite, read, recorded, same
from stream_app.settings import Settings
from stream_app.sinks.parquet import field_name, stored_name

_ENDED = "SHARD_END"
# Files in memory at once, and threads that read and correct them.
_FILES, _THREADS = 16, 4


class _Read(NamedTuple):
    """A group, and its file as it was read: None where there is none, or what reading it raised."""

    group: Group
    file: File | Exception | None


class _Chain(NamedTuple):
    """Groups that share devices, in order."""

    devices: frozenset[tuple[str, str, str]]
    reads: Sequence[_Read]


@dataclass(frozen=True, slots=True)
class Corrector:
    """Makes corrections (`request.Work`). `committed` says whether a position lies behind its shard's checkpoint."""

    of: Dependencies
    committed: Callable[[Position], bool]
    cache: RowsCache = field(default_factory=RowsCache)

    def __call__(self, request: Request) -> Done:
        """Correct the row of the request's position; safe to repeat.

        Raises EarlyError while its segment is not behind the checkpoint, ImpossibleError when there is nothing
        that could be corrected, and what boto3 raises.
        """
        (found,) = self.correct_all([request])
        if isinstance(found, Exception):
            raise found
        return found

    def correct_all(self, requests: Sequence[Request], may_read: MayRead = unlimited) -> list[Outcome]:
        """Correct the rows of several requests, each position once; what `__call__` returns or raises for each."""
        batch = Batched(self._files(), may_read)
        found: dict[Position, Outcome] = {}
        groups = self._groups(requests, batch, found)
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="correct") as pool:
            for start in range(0, len(groups), _FILES):
                part = groups[start : start + _FILES]
                for outcomes in pool.map(_correct, _chains(list(pool.map(self._read, part)))):
                    found |= outcomes
        return [found[request.position] for request in requests]

    def again(self, entry: Entry) -> bool:
        """Put a recorded correction into its row once more, after a replay; whether it was not there.

        What is put there is what was recorded: nothing is recalculated, and no payload is needed. Raises as a
        correction does; ImpossibleError also when the row holds neither what was recorded before nor after.
        """
        request, done = entry.request, entry.done
        codec = self.of.registry.codecs.get(request.event)
        if codec is None or done is None:
            raise ImpossibleError("there is no correction of it" if codec else _unknown(request))
        key = _Locator(self, self._files()).key(request)
        file = read(self.of.s3, self.of.bucket, key)
        at = None if file is None else file.row(request.position)
        if file is None or at is None:
            raise ImpossibleError("it is not among the stored rows")
        row = file.table.slice(at, 1)
        before, after = (recorded(values, row) for values in (done.before, done.after))
        written = overwrite(self.of.s3, self.of.bucket, key, request.position, before, after)
        if written is None:
            raise ImpossibleError("its row holds neither what was recorded before nor after")
        device = str(row[stored_name(codec.event.key, codec.event.name)][0].as_py())
        names = {each.name for each in codec.schema.fields}
        values = {field_name(name, request.event, names): v for name, v in after.to_pylist()[0].items()}
        self.of.latest(codec.event, [Change(device, request.position, values)])
        return not same(row, after)

    def _files(self) -> Files:
        return Files(self.of.s3, self.of.bucket, self.cache)

    def _read(self, group: Group) -> _Read:
        try:
            file = group.read()
            if file is not None:  # rows of its neighbours are looked for in it
                group.batch.files.keep(file, group.codec)
            return _Read(group, file)
        except Exception as error:
            return _Read(group, error)

    def _groups(
        self, requests: Sequence[Request], batch: Batched, found: dict[Position, Outcome]
    ) -> list[Group]:
        """The requests by file, in order of positions; what became of the others is `found`."""
        locator = _Locator(self, batch.files)
        by_key: dict[tuple[str, str], list[Request]] = {}
        for request in sorted(requests, key=lambda one: one.position.order):
            try:
                if request.event not in self.of.registry.codecs:
                    raise ImpossibleError(_unknown(request))
                by_key.setdefault((request.event, locator.key(request)), []).append(request)
            except Exception as error:  # what the world raises is this request's alone
                found[request.position] = error
        groups = [
            Group(self.of, batch, self.of.registry.codecs[event], key, some[start : start + MOST_ROWS])
            for (event, key), some in by_key.items()
            for start in range(0, len(some), MOST_ROWS)
        ]
        return sorted(groups, key=lambda group: group.order)


@dataclass(frozen=True, slots=True)
class _Locator:
    """Finds the file of a request's row. What is known of manifests and checkpoints is asked for once a batch."""

    corrector: Corrector
    files: Files
    committed: dict[Position, bool] = field(default_factory=dict)

    def key(self, request: Request) -> str:
        """The file's key. Raises EarlyError while its segment is not behind the checkpoint, and ImpossibleError."""
        position = request.position
        manifest = self.files.find(request.consumer, request.event, position, request.arrived)
        if manifest is None:
            raise EarlyError("its segment is not stored")
        last = position_from_token(position.shard, manifest.last.position)
        if last not in self.committed:
            self.committed[last] = self.corrector.committed(last)
        if not self.committed[last]:
            raise EarlyError("its segment is not behind the checkpoint")
        if request.event not in manifest.stored:
            raise ImpossibleError("it is not among the stored rows")
        return manifest.stored[request.event].key


def _chains(reads: Sequence[_Read]) -> list[_Chain]:
    """Reads that share a device of a shard in one chain, in order."""
    chains: list[_Chain] = []
    for one in reads:
        devices, together = _devices(one), [one]
        for chain in [chain for chain in chains if not devices.isdisjoint(chain.devices)]:
            chains.remove(chain)
            devices, together = devices | chain.devices, [*chain.reads, *together]
        chains.append(_Chain(devices, sorted(together, key=lambda read: read.group.order)))
    return chains


def _devices(one: _Read) -> frozenset[tuple[str, str, str]]:
    """The devices of the rows that are to be corrected; of a file that cannot be read its key stands for them."""
    group, event, shard = one.group, one.group.codec.event, one.group.requests[0].shard
    if not isinstance(one.file, File):
        return frozenset({("", "", group.key)})
    rows = [row for row in one.file.rows([r.position for r in group.requests]) if row is not None]
    keys = one.file.table[stored_name(event.key, event.name)].take(pa.array(rows, pa.int64())).to_pylist()
    return frozenset((shard, event.name, str(key)) for key in keys)


def _correct(chain: _Chain) -> dict[Position, Outcome]:
    """Correct the groups of a chain, one after the other. After one that failed the others wait."""
    found: dict[Position, Outcome] = {}
    failed, keys = False, set[str]()
    for group, file in chain.reads:
        outcomes: Sequence[Outcome]
        if failed:
            outcomes = [EarlyError("an earlier file of the device could not be corrected")] * len(
                group.requests
            )
        else:
            try:
                if isinstance(file, Exception):
                    raise file
                outcomes = group.correct(file if group.key not in keys else group.read())
                keys.add(group.key)
            except Exception as error:
                outcomes, failed = [error] * len(group.requests), not isinstance(error, EarlyError)
        found |= {request.position: one for request, one in zip(group.requests, outcomes, strict=True)}
    return found


def committed(dynamodb: Any, s3: Any, bucket: str, application: str) -> Callable[[Position], bool]:
    """Whether a position lies behind its shard's checkpoint in KCL's lease table, which is named `application`.

    KCL deletes the lease of a shard that has ended, once its children are under way; then the state of its end
    is the witness.
    """

    def behind(position: Position) -> bool:
        answer = dynamodb.get_item(
            TableName=application, Key={"leaseKey": {"S": position.shard}}, ConsistentRead=True
        )
        if "Item" not in answer:
            return objects.head(s3, bucket, f"state/{application}/{position.shard}/{_ENDED}") is not None
        sequence = answer["Item"].get("checkpoint", {}).get("S", "")
        sub = int(answer["Item"].get("checkpointSubSequenceNumber", {}).get("N", "0"))
        if sequence == _ENDED:
            return True
        return bool(sequence.isdigit()) and position.order <= (int(sequence), sub)

    return behind


def _unknown(request: Request) -> str:
    return f"no event type {request.event!r} is declared"


def corrector(
    *,
    kinesis: Any,
    s3: Any,
    dynamodb: Any,
    stream: str,
    bucket: str,
    application: str,
    registry: Registry,
    history: History,
    max_bytes: int,
    now_ms: Callable[[], int],
    latest_table: str = "",
    reads_per_second: float = 1.0,
) -> Corrector:
    """A corrector of one consumer: payloads from the stream, else the failure store; checkpoints from its leases.

    Where a `latest_table` is named, the latest values in it are corrected, too. `reads_per_second` is how often a
    shard may be read.
    """
    of = Dependencies(
        s3=s3,
        bucket=bucket,
        registry=registry,
        history=history,
        payloads=first_of(
            from_stream(kinesis, stream, near(reads_per_second)), from_store(s3, bucket, application)
        ),
        latest=latest_in(dynamodb, latest_table) if latest_table else nowhere,
        max_bytes=max_bytes,
        now_ms=now_ms,
    )
    return Corrector(of, committed(dynamodb, s3, bucket, application))


def corrector_of(
    settings: Settings,
    client: Callable[[str], Any],
    registry: Registry,
    history: History,
    now_ms: Callable[[], int],
    reads_per_second: float = 1.0,
) -> Corrector:
    """The corrector of the application that the settings describe; `client` makes boto3 clients, one a service."""
    return corrector(
        kinesis=client("kinesis"),
        s3=client("s3"),
        dynamodb=client("dynamodb"),
        stream=settings.stream,
        bucket=settings.bucket,
        application=settings.application,
        registry=registry,
        history=history,
        max_bytes=settings.max_record_bytes,
        now_ms=now_ms,
        latest_table=settings.latest_table,
        reads_per_second=reads_per_second,
    )
