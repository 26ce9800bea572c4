"""How a correction is made: wait for the checkpoint, find row and payload, recalculate, overwrite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import pyarrow as pa

from stream_app.pipeline.registry import Codec, Registry
from stream_app.pipeline.rules import FLAG
from stream_app.record import Batch, Position, Record
from stream_app.recovery.correct.differences import differing, named
from stream_app.recovery.correct.history import Done, Entry, History, Request
from stream_app.recovery.correct.latest import Latest, latest_in, nowhere
from stream_app.recovery.correct.past import Shelf, own_fields, past
from stream_app.recovery.correct.payload import Payload, first_of, from_store, from_stream
from stream_app.recovery.correct.recalculate import ImpossibleError, Recalculated, decoded, recalculated
from stream_app.recovery.correct.request import EarlyError
from stream_app.recovery.correct.segment import File, find, overwrite, read, recorded, same
from stream_app.settings import Settings
from stream_app.sinks import objects
from stream_app.sinks.parquet import IDENTITY, field_name, stored_name
from stream_app.sinks.segment import from_token

_ENDED = "SHARD_END"


class _Original(NamedTuple):
    """A record as it came, and its fields; `rebuilt` from its stored columns, then without its bytes."""

    record: Record
    fields: Batch
    rebuilt: bool


@dataclass(frozen=True, slots=True)
class Corrector:
    """Makes corrections (`request.Work`). `committed` says whether a position lies behind its shard's checkpoint."""

    s3: Any
    bucket: str
    registry: Registry
    history: History
    payload: Payload
    committed: Callable[[Position], bool]
    max_bytes: int
    now_ms: Callable[[], int]
    latest: Latest = nowhere

    def __call__(self, request: Request) -> Done:
        """Correct the row of the request's position; safe to repeat.

        Raises EarlyError while its segment is not behind the checkpoint, ImpossibleError when there is nothing
        that could be corrected, and what boto3 raises.
        """
        codec = self.registry.codecs.get(request.event)
        if codec is None:
            raise ImpossibleError(_unknown(request))
        file, at = self._locate(request)
        row = file.table.slice(at, 1)
        original = self._original(request, codec, file, row)
        shelf, result = self._recalculate(request, codec, file, row, original)
        written = overwrite(self.s3, self.bucket, file.key, request.position, *result)
        if written is None:
            raise ImpossibleError("its row was changed by somebody else meanwhile")
        before, after = _changes(result)
        affected, until = shelf.after(request.position, file, self.now_ms())
        return Done(
            key=file.key,
            version_before=written[0],
            version=written[1],
            before=_as_json(before),
            after=_as_json(after),
            affected=affected,
            affects_until=until,
            rebuilt=original.rebuilt,
            latest=self._latest(request, codec, shelf.device, after),
        )

    def again(self, entry: Entry) -> bool:
        """Put a recorded correction into its row once more, after a replay; whether it was not there.

        What is put there is what was recorded: nothing is recalculated, and no payload is needed. Raises as a
        correction does; ImpossibleError also when the row holds neither what was recorded before nor after.
        """
        request, done = entry.request, entry.done
        codec = self.registry.codecs.get(request.event)
        if codec is None or done is None:
            raise ImpossibleError("there is no correction of it" if codec else _unknown(request))
        file, at = self._locate(request)
        row = file.table.slice(at, 1)
        before, after = (recorded(values, row) for values in (done.before, done.after))
        written = overwrite(self.s3, self.bucket, file.key, request.position, before, after)
        if written is None:
            raise ImpossibleError("its row holds neither what was recorded before nor after")
        device = str(row[stored_name(codec.event.key, codec.event.name)][0].as_py())
        self._latest(request, codec, device, after.to_pylist()[0])
        return not same(row, after)

    def _latest(self, request: Request, codec: Codec, device: str, after: Mapping[str, Any]) -> bool:
        names = {field.name for field in codec.schema.fields}
        fields = {field_name(column, request.event, names): value for column, value in after.items()}
        return bool(fields) and self.latest(codec.event, device, request.position, fields)

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

    def _original(self, request: Request, codec: Codec, file: File, row: pa.Table) -> _Original:
        """What came: from the payload; where that is gone, from the columns that it became."""
        position, partition_key = request.position, row["partition_key"][0].as_py()
        arrived = int(row["arrived"][0].value)
        record = self.payload(position, partition_key, arrived)
        if record is not None:
            return _Original(record, decoded(record, request.event, self.registry, self.max_bytes), False)
        if not self._all_noted(request, file):
            # Perhaps this very row's, by a process that died before its note: it must not be corrected twice.
            raise EarlyError("a correction in its file is not noted yet")
        fields = own_fields(row, codec)
        if fields is None:
            reason = (
                "its payload is neither in the stream nor in the failure store, and its row lacks fields of"
            )
            raise ImpossibleError(f"{reason} today's schema")
        return _Original(Record(b"", partition_key, position.sequence, arrived, position.sub), fields, True)

    def _all_noted(self, request: Request, file: File) -> bool:
        """Whether the history knows as many corrections of the file's rows as the file itself."""
        noted = self.history.entries(request.consumer, *file.ends(request.shard))
        return sum(entry.done is not None for entry in noted) == file.corrections

    def _recalculate(
        self, request: Request, codec: Codec, file: File, row: pa.Table, original: _Original
    ) -> tuple[Shelf, Recalculated]:
        record, fields, _ = original
        position, arrived = request.position, record.arrived
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
                "the stored row is not what its payload gives: its past cannot be put together "
                f"(columns that differ: {named(differing(row, result.before))})"
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
    return row


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: v.isoformat() if isinstance(v, datetime) else v for name, v in values.items()}


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
) -> Corrector:
    """A corrector of one consumer: payloads from the stream, else the failure store; checkpoints from its leases.

    Where a `latest_table` is named, the latest values in it are corrected, too.
    """
    return Corrector(
        s3=s3,
        bucket=bucket,
        registry=registry,
        history=history,
        payload=first_of(from_stream(kinesis, stream), from_store(s3, bucket, application)),
        committed=committed(dynamodb, s3, bucket, application),
        max_bytes=max_bytes,
        now_ms=now_ms,
        latest=latest_in(dynamodb, latest_table) if latest_table else nowhere,
    )


def corrector_of(
    settings: Settings,
    client: Callable[[str], Any],
    registry: Registry,
    history: History,
    now_ms: Callable[[], int],
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
    )
