"""The highest-scoring anomalies of a run, read from the queue that receives the alerts."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import msgspec

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_BATCH = 10  # messages per request, the maximum of SQS
_MAX_MESSAGES = 3_000


class AnomalySummary(TypedDict):
    """An anomaly as shown in the summary of a run."""

    event: str
    key: str
    severity: str
    score: float
    text: str


class _Explanation(msgspec.Struct):
    severity: str
    text: str


class _Alert(msgspec.Struct):
    event: str
    key: str
    score: float | None = None
    explanation: _Explanation | None = None


class _Message(msgspec.Struct):
    detail: _Alert


_decode = msgspec.json.Decoder(_Message).decode


def top_anomalies(sqs: SQSClient, queue: str, number: int = 3) -> tuple[AnomalySummary, ...]:
    """Return the highest-scoring anomaly of each device, ordered by score, at most `number` in total.

    Considers only alerts with an explanation. Received messages stay in flight, because the queue ends with the run.
    """
    best: dict[str, AnomalySummary] = {}
    seen = 0
    while seen < _MAX_MESSAGES:
        messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=_BATCH).get("Messages", [])
        if not messages:
            break
        seen += len(messages)
        for message in messages:
            anomaly = _summary(_decode(message["Body"]).detail)
            known = best.get(anomaly["key"]) if anomaly is not None else None
            if anomaly is not None and (known is None or anomaly["score"] > known["score"]):
                best[anomaly["key"]] = anomaly
    return tuple(sorted(best.values(), key=lambda anomaly: (-anomaly["score"], anomaly["key"]))[:number])


def _summary(alert: _Alert) -> AnomalySummary | None:
    if alert.explanation is None or alert.score is None:
        return None
    return {
        "event": alert.event,
        "key": alert.key,
        "severity": alert.explanation.severity,
        "score": alert.score,
        "text": alert.explanation.text,
    }
