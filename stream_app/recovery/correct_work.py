"""How a correction is made: wait for the checkpoint, find row and payload, recalculate, overwrite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from stream_app.pipeline.registry import Codec, Registry
from stream_app.pipeline.rules import FLAG
from stream_app.record import Position
from stream_app.recovery.correct import EarlyError
from stream_app.recovery.correct_payload import Payload, first_of, from_store, from_stream
from stream_app.recovery.correct_segment import File, find, overwrite, read, same
from stream_app.recovery.history import Done, Entry, History, Request
from stream_app.recovery.recalculate import ImpossibleError, Recalculated, decoded, recalculated
from stream_app.recovery.recalculate_past import Shelf, past
from stream_app.sinks import objects
from stream_app.sinks.parquet import IDENTITY
from stream_app.sinks.segment import from_token

_ENDED = "SHARD_END"


@dataclass(frozen=True, slots=True)
class Corrector:
    """Makes corrections (`correct.Work`). `committed` says whether a position lies behind its shard's checkpoint."""

    s3: Any
    bucket: str
    registry: Registry
    history: History
    payload: Payload
    committed: Callable[[Position], bool]
    max_bytes: int
    now_ms: Callable[[], int]

    def __call__(self, request: Request) -> Done:
        """Correct the row of the request's position; safe to repeat.

        Raises EarlyError while its segment is not behind the checkpoint, ImpossibleError when there is nothing
        that could be corrected, and what boto3 raises.
        """
        codec = self.registry.codecs.get(request.event)
        if codec is None:
            raise ImpossibleError(f"no event type {request.event!r} is declared")
        file, at = self._locate(request)
        row = file.table.slice(at, 1)
        shelf, result = self._recalculate(request, codec, file, row)
        written = overwrite(self.s3, self.bucket, file.key, request.position, *result)
        if written is None:
            raise ImpossibleError("its row was changed by somebody else meanwhile")
        before, after = _changes(result)
        affected, until = shelf.after(request.position, file, self.now_ms())
        return Done(
            key=file.key,
            version_before=written[0],
            version=written[1],
            before=before,
            after=after,
            affected=affected,
            affects_until=until,
        )

    def _locate(self, request: Request) -> tuple[File, int]:
        position = request.position
        manifest = find(self.s3, self.bucket, request.consumer, request.event, position, request.arrived)
        if manifest is None:
            raise EarlyError("its segment is not stored")
        if not self.committed(from_token(position.shard, manifest.last.position)):
            raise EarlyError("its segment is not behind the checkpoint")
        stored = manifest.stored.get(request.event)
        file = None if stored is None else read(self.s3, self.bucket, stored.key)
        at = None if file is None else file.row(position)
        if file is None or at is None:
            raise ImpossibleError("it is not among the stored rows")
        return file, at

    def _recalculate(
        self, request: Request, codec: Codec, file: File, row: pa.Table
    ) -> tuple[Shelf, Recalculated]:
        position, arrived = request.position, int(row["arrived"][0].value)
        record = self.payload(position, row["partition_key"][0].as_py(), arrived)
        if record is None:
            raise ImpossibleError("its payload is neither in the stream nor in the failure store")
        fields = decoded(record, request.event, self.registry, self.max_bytes)
        device = str(fields[codec.event.key][0])
        shelf = Shelf(self.s3, self.bucket, codec, device, arrived)
        rows = shelf.before(position, file)
        oldest = Position(position.shard, *rows[0]["place"]) if rows else position
        noted = list(self.history.entries(request.consumer, oldest, position))
        flag = row[FLAG][0].as_py() if FLAG in row.column_names else None
        result = recalculated(fields, record, position.shard, flag, past(rows, noted, codec), codec)
        if not same(row, result.before) and not same(row, result.after):
            if any(_in_progress(entry) and entry.request.position != position for entry in noted):
                raise EarlyError("an earlier row of the device is just being corrected")
            raise ImpossibleError(
                "the stored row is not what its payload gives: its past cannot be put together"
            )
        return shelf, result


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


def _in_progress(entry: Entry) -> bool:
    return entry.done is None and entry.refusal is None


def _changes(result: Recalculated) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The columns that the correction changes, with their values before and after."""
    before, after = _values(result.before), _values(result.after)
    names = [name for name in after if name not in IDENTITY and before.get(name) != after[name]]
    return {name: before.get(name) for name in names}, {name: after[name] for name in names}


def _values(table: pa.Table) -> dict[str, Any]:
    row: dict[str, Any] = table.to_pylist()[0]
    return {name: v.isoformat() if isinstance(v, datetime) else v for name, v in row.items()}


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
) -> Corrector:
    """A corrector of one consumer: payloads from the stream, else the failure store; checkpoints from its leases."""
    return Corrector(
        s3=s3,
        bucket=bucket,
        registry=registry,
        history=history,
        payload=first_of(from_stream(kinesis, stream), from_store(s3, bucket, application)),
        committed=committed(dynamodb, s3, bucket, application),
        max_bytes=max_bytes,
        now_ms=now_ms,
    )
