"""The queue of corrections, its dead letters, and the queue and the store of what people must look at."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from stream_app.recovery.bounded import decoded
from stream_app.recovery.correct.history import Refusal, Request
from stream_app.recovery.correct.limits import Bucket, delay_seconds
from stream_app.recovery.correct.request import Book, Verdict, Work, correct, finally_correct
from stream_app.sinks.segment import instant, token

MANUAL = "manual/"
MANUAL_KIND = "stream-app.manual"
ANOMALY, ASKED = "AnomalyDetected", "CorrectionRequested"
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_SEQUENCE = re.compile(r"[0-9]{1,60}")
_LONGEST_ID = 512


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
class Desk:
    """Everything that answering requests takes.

    `queue`, the one that is read, and `manual` are URLs. A message waits at most `patience` seconds for a token.
    """

    sqs: Any
    s3: Any
    bucket: str
    consumer: str
    book: Book
    work: Work
    queue: str
    manual: str
    tokens: Bucket
    patience: float = 20.0
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


def correct_batch(event: Mapping[str, Any], desk: Desk) -> dict[str, list[dict[str, str]]]:
    """Answer the messages of one Lambda SQS event, as fast as the tokens allow; returns `batchItemFailures`.

    A request that comes too early, or for which there was no token in time, stays in its queue, hidden for a while
    that grows with every time. A message that is no request is stored for people at once. What the world raises
    leaves the message to the queue's redrive policy.
    """

    def one(message: Mapping[str, Any], request: Request) -> bool:
        if not desk.tokens.take(desk.patience):
            return _put_off(message, desk)
        verdict = correct(request, desk.book, desk.work, lambda refusal: _send(refusal, desk))
        desk.report("correction", {"position": str(request.position), "verdict": verdict.value})
        return _put_off(message, desk) if verdict is Verdict.EARLY else True

    return _answer(event, desk, one)


def dead_batch(event: Mapping[str, Any], desk: Desk) -> dict[str, list[dict[str, str]]]:
    """A final try for the messages of the corrections' dead letter queue; what fails is stored for people."""

    def one(message: Mapping[str, Any], request: Request) -> bool:
        if not desk.tokens.take(desk.patience):
            return _put_off(message, desk)
        verdict = finally_correct(
            request, desk.book, desk.work, lambda request, reason: keep(desk.s3, desk.bucket, request, reason)
        )
        desk.report("last correction", {"position": str(request.position), "verdict": verdict.value})
        return True

    return _answer(event, desk, one)


def _answer(
    event: Mapping[str, Any], desk: Desk, one: Callable[[Mapping[str, Any], Request], bool]
) -> dict[str, list[dict[str, str]]]:
    failed = []
    for message in event["Records"]:
        try:
            try:
                request = parse(message["body"], desk.consumer)
            except ValueError as error:
                keep_unreadable(desk.s3, desk.bucket, desk.consumer, message["body"])
                desk.report("unreadable request", {"error": str(error)})
                continue
            answered = one(message, request)
        except Exception as error:
            # Whatever it is, only this message waits: it stays in the queue and comes again.
            desk.report("correction failed", {"error": type(error).__name__, "message": message["messageId"]})
            with suppress(Exception):  # then it waits for as long as its queue says
                _put_off(message, desk)
            answered = False
        if not answered:
            failed.append({"itemIdentifier": message["messageId"]})
    return {"batchItemFailures": failed}


def _put_off(message: Mapping[str, Any], desk: Desk) -> bool:
    receives = int(message.get("attributes", {}).get("ApproximateReceiveCount", "1"))
    desk.sqs.change_message_visibility(
        QueueUrl=desk.queue,
        ReceiptHandle=message["receiptHandle"],
        VisibilityTimeout=delay_seconds(receives),
    )
    return False


def _send(refusal: Refusal, desk: Desk) -> None:
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
    at = instant(request.arrived)
    return f"{MANUAL}{request.consumer}/{at:%Y/%m/%d/%H}/{request.shard}-{token(request.position)}.json"


def _letter(request: Request, reason: str) -> bytes:
    return msgspec.json.encode({"kind": MANUAL_KIND, "version": 1, "reason": reason, "request": request})
