"""The corrections queue, its dead-letter queue, and the manual queue and store."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import msgspec

from stream_app.model.record import Position
from stream_app.model.segment import token, utc_datetime
from stream_app.recovery.bounded import decoded
from stream_app.recovery.correct.calculation.payload import MayRead
from stream_app.recovery.correct.history_entry import Correction, Refusal, Request
from stream_app.recovery.correct.limits import ReadLimiter, retry_delay_seconds
from stream_app.recovery.correct.request import HistoryStore, RequestResult, correct_all, final_attempt

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import ChangeMessageVisibilityBatchRequestEntryTypeDef

MANUAL = "manual/"
MANUAL_KIND = "stream-app.manual"
ANOMALY, REQUESTED = "AnomalyDetected", "CorrectionRequested"
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_SEQUENCE = re.compile(r"[0-9]{1,60}")
_MAX_ID_LENGTH = 512
_BATCH = 10  # limit of ChangeMessageVisibilityBatch

# The decoded JSON of a Lambda event, and of one SQS message in it.
Json = Mapping[str, Any]


class BatchResponse(TypedDict):
    """The response of a Lambda function to SQS: the messages of the batch that failed."""

    batchItemFailures: list[dict[str, str]]


class _Detail(msgspec.Struct, frozen=True):
    id: str
    event: str
    consumer: str
    shard: str
    sequence: str
    arrived: int
    sub: int = 0
    key: str = ""
    detector: str = ""
    by: str = ""


class _Envelope(msgspec.Struct, frozen=True, rename={"detail_type": "detail-type"}):
    source: str
    detail_type: str
    detail: _Detail


@dataclass(frozen=True, slots=True)
class QueueDependencies:
    """The clients and settings for processing correction requests.

    `work` makes corrections of different positions; it reads a shard only as often as it is allowed to. `queue`,
    the one that is consumed, and `manual` are URLs. A batch waits at most `timeout` seconds in all for the read
    limit.
    """

    sqs: SQSClient
    s3: S3Client
    bucket: str
    consumer: str
    history: HistoryStore
    work: Callable[[Sequence[Request], MayRead], Sequence[Correction | Exception]]
    queue: str
    manual: str
    reads: ReadLimiter
    timeout: float = 60.0
    report: Callable[[str, Mapping[str, str]], None] = lambda _what, _values: None


def parse(body: str, consumer: str) -> Request:
    """Return the request in an event bus message. Raises ValueError for any other message."""
    try:
        envelope = decoded(body, _Envelope)
    except ValueError as error:
        raise ValueError(f"not a correction request: {error}") from error
    detail = envelope.detail
    problems = [
        name
        for name, is_invalid in (
            ("detail-type", envelope.detail_type not in (ANOMALY, REQUESTED)),
            ("id", not 0 < len(detail.id) <= _MAX_ID_LENGTH),
            ("consumer", detail.consumer != consumer),
            ("shard", not _NAME.fullmatch(detail.shard)),
            ("event", not _NAME.fullmatch(detail.event)),
            ("sequence", not _SEQUENCE.fullmatch(detail.sequence)),
            ("sub", not 0 <= detail.sub < 10**10),
            ("arrived", not 0 <= detail.arrived < 10**14),
        )
        if is_invalid
    ]
    if problems:
        raise ValueError(f"not a correction request for consumer {consumer}: invalid {', '.join(problems)}")
    return Request(
        id=detail.id,
        event=detail.event,
        key=detail.key,
        consumer=detail.consumer,
        shard=detail.shard,
        sequence=detail.sequence,
        sub=detail.sub,
        arrived=detail.arrived,
        by=detail.by or f"{envelope.source} {detail.detector}".strip(),
    )


def correct_batch(event: Json, dependencies: QueueDependencies) -> BatchResponse:
    """Process the messages of one Lambda SQS event; return `batchItemFailures`.

    Requests for different positions are processed together, those for the same position one after the other. A
    request that cannot be processed yet, or for which the stream may not be read in time, stays in its queue with a
    visibility timeout that grows with each receive. A message that is not a correction request is stored for manual
    handling at once. Any other error leaves the message to the queue's redrive policy.
    """
    may_read = dependencies.reads.within(dependencies.timeout)
    to_retry = list[Json]()
    remaining, unreadable = _requests(event, dependencies)
    while remaining:
        now, remaining = _first_per_position(remaining)
        results = _results([request for _, request in now], dependencies, may_read)
        for (message, request), result in zip(now, results, strict=True):
            if isinstance(result, Exception):
                _report_failed(result, message, dependencies)
            else:
                dependencies.report("correction", {"position": str(request.position), "result": result.value})
            if isinstance(result, Exception) or result is RequestResult.EARLY:
                to_retry.append(message)
    return _return_to_queue([*unreadable, *to_retry], dependencies)


def correct_dead_letters(event: Json, dependencies: QueueDependencies) -> BatchResponse:
    """Make a last attempt at the messages of the corrections' dead-letter queue.

    What fails is stored for manual handling.
    """
    may_read = dependencies.reads.within(dependencies.timeout)

    def work(request: Request) -> Correction:
        (found,) = dependencies.work([request], may_read)
        if isinstance(found, Exception):
            raise found
        return found

    def store(request: Request, reason: str) -> str:
        return store_manual(dependencies.s3, dependencies.bucket, request, reason)

    requests, to_retry = _requests(event, dependencies)
    for message, request in requests:
        try:
            result = final_attempt(request, dependencies.history, work, store)
            dependencies.report(
                "last correction", {"position": str(request.position), "result": result.value}
            )
        except Exception as error:
            _report_failed(error, message, dependencies)
            to_retry.append(message)
    return _return_to_queue(to_retry, dependencies)


def _requests(event: Json, dependencies: QueueDependencies) -> tuple[list[tuple[Json, Request]], list[Json]]:
    """Return messages with their requests, and the messages that must be received again.

    Messages without a valid request are stored for manual handling; those that could not be stored are received
    again.
    """
    found, failed = list[tuple[Json, Request]](), list[Json]()
    for message in event["Records"]:
        try:
            found.append((message, parse(message["body"], dependencies.consumer)))
        except ValueError as error:
            try:
                store_unreadable(dependencies.s3, dependencies.bucket, dependencies.consumer, message["body"])
                dependencies.report("unreadable request", {"error": str(error)})
            except Exception as raised:
                _report_failed(raised, message, dependencies)
                failed.append(message)
    return found, failed


def _first_per_position(
    requests: Sequence[tuple[Json, Request]],
) -> tuple[list[tuple[Json, Request]], list[tuple[Json, Request]]]:
    """Return the first request of each position, and the others."""
    first, others, positions = (
        list[tuple[Json, Request]](),
        list[tuple[Json, Request]](),
        set[Position](),
    )
    for message, request in requests:
        (others if request.position in positions else first).append((message, request))
        positions.add(request.position)
    return first, others


def _results(
    requests: Sequence[Request], dependencies: QueueDependencies, may_read: MayRead
) -> list[RequestResult | Exception]:
    try:
        return correct_all(
            requests,
            dependencies.history,
            lambda ready: dependencies.work(ready, may_read),
            lambda refusal: _send(refusal, dependencies),
        )
    except Exception as error:
        # The history is not available: all messages stay in the queue and are received again.
        return [error] * len(requests)


def _report_failed(error: Exception, message: Json, dependencies: QueueDependencies) -> None:
    dependencies.report("correction failed", {"error": type(error).__name__, "message": message["messageId"]})


def _return_to_queue(messages: Sequence[Json], dependencies: QueueDependencies) -> BatchResponse:
    """Set the messages' visibility timeouts and return them as failures of their batch."""
    for start in range(0, len(messages), _BATCH):
        entries: list[ChangeMessageVisibilityBatchRequestEntryTypeDef] = [
            {
                "Id": str(at),
                "ReceiptHandle": message["receiptHandle"],
                "VisibilityTimeout": retry_delay_seconds(_receives(message)),
            }
            for at, message in enumerate(messages[start : start + _BATCH])
        ]
        with suppress(Exception):  # else the queue's own visibility timeout applies
            dependencies.sqs.change_message_visibility_batch(QueueUrl=dependencies.queue, Entries=entries)
    return {"batchItemFailures": [{"itemIdentifier": message["messageId"]} for message in messages]}


def _receives(message: Json) -> int:
    return int(message.get("attributes", {}).get("ApproximateReceiveCount", "1"))


def _send(refusal: Refusal, dependencies: QueueDependencies) -> None:
    dependencies.sqs.send_message(
        QueueUrl=dependencies.manual, MessageBody=_document(refusal.request, refusal.reason).decode()
    )


def store_manual(s3: S3Client, bucket: str, request: Request, reason: str) -> str:
    """Store a request for manual handling, without a payload; return its key.

    The key depends on the position alone.
    """
    key = manual_key(request)
    s3.put_object(Bucket=bucket, Key=key, Body=_document(request, reason), ContentType="application/json")
    return key


def store_unreadable(s3: S3Client, bucket: str, consumer: str, body: str) -> str:
    """Store a message that is not a correction request under the hash of its text."""
    raw = body.encode("utf-8", "replace")
    key = f"{MANUAL}{consumer}/unreadable/{hashlib.sha256(raw).hexdigest()}.txt"
    s3.put_object(Bucket=bucket, Key=key, Body=raw, ContentType="text/plain; charset=utf-8")
    return key


def manual_key(request: Request) -> str:
    """Return the key of a request that is stored for manual handling.

    It is `manual/<consumer>/<YYYY>/<MM>/<DD>/<HH>/<shard>-<position>.json`.
    """
    at = utc_datetime(request.arrived)
    return f"{MANUAL}{request.consumer}/{at:%Y/%m/%d/%H}/{request.shard}-{token(request.position)}.json"


def _document(request: Request, reason: str) -> bytes:
    return msgspec.json.encode({"kind": MANUAL_KIND, "version": 1, "reason": reason, "request": request})
