"""Builds correctors from clients and options, and reads checkpoints from KCL's lease table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_app.aws import objects
from stream_app.aws.clients import ClientFactory
from stream_app.model.record import Position
from stream_app.pipeline.registry import Registry
from stream_app.recovery.correct.calculation.payload import (
    first_of,
    from_store,
    from_stream,
    max_row_gap,
)
from stream_app.recovery.correct.corrector import Corrector
from stream_app.recovery.correct.history import History
from stream_app.recovery.correct.rewriting.dependencies import Dependencies
from stream_app.recovery.correct.rewriting.latest import latest_in, no_latest_values
from stream_app.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_s3 import S3Client

_SHARD_END = "SHARD_END"


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
