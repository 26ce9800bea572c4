"""The queue of corrections, its dead letters, and the queue and the store of what people must look at."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from stream_app.model.record import Position
from stream_app.model.segment import token, utc_datetime
from stream_app.recovery.bounded import decoded
from stream_app.recovery.correct.calculation.payload import MayRead
from stream_app.recovery.correct.history import Done, Refusal, Request
from stream_app.recovery.correct.limits import Reads, delay_seconds
from stream_app.recovery.correct.request import Book, RequestResult, correct_all, finally_correct

MANUAL = "manual/"
MANUAL_KIND = "stream-app.manual"
ANOMALY, ASKED = "AnomalyDetected", "CorrectionRequested"
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_SEQUENCE = re.compile(r"[0-9]{1,60}")
_LONGEST_ID = 512
_AT_ONCE = 10  # messages that SQS takes in one request

Message = Mapping[str, Any]


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
    """Everything that answering requests takes.

    `work` makes corrections of different positions, reading a shard only when it may. `queue`, the one that is read,
    and `manual` are URLs. A batch waits at most `patience` seconds in all for leave to read the stream.
    """

    sqs: Any
    s3: Any
    bucket: str
    consumer: str
    book: Book
    work: Callable[[Sequence[Request], MayRead], Sequence[Done | Exception]]
    queue: str
    manual: str
    reads: Reads
    patience: float = 60.0
    report: Callable[[str, Mapping[str, Any]], None] = lambda _what, _values: None


def parse(body: str, consumer: str) -> Request:
    """The request in a message of the queue: an event of the bus. Raises ValueError when it is none of ours."""
    try:
        envelope = decoded(body, _Envelope)
    except ValueError as error:
        raise ValueError(f"not a request for a correction: {error}") from error
    detail = envelope.detail
    problems = [
        name
        for name, wrong in (
            ("detail-type", envelope.detail_type not in (ANOMALY, ASKED)),
            ("id", not 0 < len(detail.id) <= _LONGEST_ID),
            ("consumer", detail.consumer != consumer),
            ("shard", not _NAME.fullmatch(detail.shard)),
            ("event", not _NAME.fullmatch(detail.event)),
            ("sequence", not _SEQUENCE.fullmatch(detail.sequence)),
            ("sub", not 0 <= detail.sub < 10**10),
            ("arrived", not 0 <= detail.arrived < 10**14),
        )
        if wrong
    ]
    if problems:
        raise ValueError(f"not a request for a correction of {consumer}: wrong {', '.join(problems)}")
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


def correct_batch(event: Mapping[str, Any], desk: QueueDependencies) -> dict[str, list[dict[str, str]]]:
    """Answer the messages of one Lambda SQS event; returns `batchItemFailures`.

    Requests of different positions are answered together, those of one position one after the other. A request that
    comes too early, or for which the stream may not be read in time, stays in its queue, hidden for a while that
    grows with every time. A message that is no request is stored for people at once. What the world raises leaves
    the message to the queue's redrive policy.
    """
    may_read = desk.reads.within(desk.patience)
    again = list[Message]()
    left, unreadable = _requests(event, desk)
    while left:
        now, left = _apart(left)
        verdicts = _verdicts([request for _, request in now], desk, may_read)
        for (message, request), verdict in zip(now, verdicts, strict=True):
            if isinstance(verdict, Exception):
                _report_failed(verdict, message, desk)
            else:
                desk.report("correction", {"position": str(request.position), "verdict": verdict.value})
            if isinstance(verdict, Exception) or verdict is RequestResult.EARLY:
                again.append(message)
    return _put_off([*unreadable, *again], desk)


def dead_batch(event: Mapping[str, Any], desk: QueueDependencies) -> dict[str, list[dict[str, str]]]:
    """A final try for the messages of the corrections' dead letter queue; what fails is stored for people."""
    may_read = desk.reads.within(desk.patience)

    def work(request: Request) -> Done:
        (found,) = desk.work([request], may_read)
        if isinstance(found, Exception):
            raise found
        return found

    def store(request: Request, reason: str) -> str:
        return keep(desk.s3, desk.bucket, request, reason)

    requests, again = _requests(event, desk)
    for message, request in requests:
        try:
            verdict = finally_correct(request, desk.book, work, store)
            desk.report("last correction", {"position": str(request.position), "verdict": verdict.value})
        except Exception as error:
            _report_failed(error, message, desk)
            again.append(message)
    return _put_off(again, desk)


def _requests(
    event: Mapping[str, Any], desk: QueueDependencies
) -> tuple[list[tuple[Message, Request]], list[Message]]:
    """Messages with what they ask for, and those that are no request and could not be kept."""
    found, failed = list[tuple[Message, Request]](), list[Message]()
    for message in event["Records"]:
        try:
            found.append((message, parse(message["body"], desk.consumer)))
        except ValueError as error:
            try:
                keep_unreadable(desk.s3, desk.bucket, desk.consumer, message["body"])
                desk.report("unreadable request", {"error": str(error)})
            except Exception as raised:
                _report_failed(raised, message, desk)
                failed.append(message)
    return found, failed


def _apart(
    requests: Sequence[tuple[Message, Request]],
) -> tuple[list[tuple[Message, Request]], list[tuple[Message, Request]]]:
    """The first request of each position, and the others."""
    first, others, positions = (
        list[tuple[Message, Request]](),
        list[tuple[Message, Request]](),
        set[Position](),
    )
    for message, request in requests:
        (others if request.position in positions else first).append((message, request))
        positions.add(request.position)
    return first, others


def _verdicts(
    requests: Sequence[Request], desk: QueueDependencies, may_read: MayRead
) -> list[RequestResult | Exception]:
    try:
        return correct_all(
            requests, desk.book, lambda some: desk.work(some, may_read), lambda refusal: _send(refusal, desk)
        )
    except Exception as error:
        # Whatever it is, the messages wait: they stay in the queue and come again.
        return [error] * len(requests)


def _report_failed(error: Exception, message: Message, desk: QueueDependencies) -> None:
    desk.report("correction failed", {"error": type(error).__name__, "message": message["messageId"]})


def _put_off(messages: Sequence[Message], desk: QueueDependencies) -> dict[str, list[dict[str, str]]]:
    """Hide messages until they may come again, as failures of their batch."""
    for start in range(0, len(messages), _AT_ONCE):
        entries = [
            {
                "Id": str(at),
                "ReceiptHandle": message["receiptHandle"],
                "VisibilityTimeout": delay_seconds(_receives(message)),
            }
            for at, message in enumerate(messages[start : start + _AT_ONCE])
        ]
        with suppress(Exception):  # then they wait for as long as their queue says
            desk.sqs.change_message_visibility_batch(QueueUrl=desk.queue, Entries=entries)
    return {"batchItemFailures": [{"itemIdentifier": message["messageId"]} for message in messages]}


def _receives(message: Message) -> int:
    return int(message.get("attributes", {}).get("ApproximateReceiveCount", "1"))


def _send(refusal: Refusal, desk: QueueDependencies) -> None:
    desk.sqs.send_message(QueueUrl=desk.manual, MessageBody=_letter(refusal.request, refusal.reason).decode())


def keep(s3: Any, bucket: str, request: Request, reason: str) -> str:
    """Store a request for people; the key, which is made of the position alone. No payload is in it."""
    key = manual_key(request)
    s3.put_object(Bucket=bucket, Key=key, Body=_letter(request, reason), ContentType="application/json")
    return key


def keep_unreadable(s3: Any, bucket: str, consumer: str, body: str) -> str:
    """Store a message that is no request, under the hash of its text."""
    raw = body.encode("utf-8", "replace")
    key = f"{MANUAL}{consumer}/unreadable/{hashlib.sha256(raw).hexdigest()}.txt"
    s3.put_object(Bucket=bucket, Key=key, Body=raw, ContentType="text/plain; charset=utf-8")
    return key


def manual_key(request: Request) -> str:
    """Where a request is stored for people: `manual/<consumer>/<YYYY>/<MM>/<DD>/<HH>/<shard>-<position>.json`."""
    at = utc_datetime(request.arrived)
    return f"{MANUAL}{request.consumer}/{at:%Y/%m/%d/%H}/{request.shard}-{token(request.position)}.json"


def _letter(request: Request, reason: str) -> bytes:
    return msgspec.json.encode({"kind": MANUAL_KIND, "version": 1, "reason": reason, "request": request})
