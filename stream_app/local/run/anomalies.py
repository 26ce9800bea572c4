"""The strangest of a run's anomalies: read from the queue where people would find them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

_AT_ONCE = 10  # SQS gives ten
_MOST = 3_000  # messages looked at: a rehearsal's, not a year's


def strangest(sqs: Any, queue: str, number: int = 3) -> tuple[Mapping[str, Any], ...]:
    """Of each device the alert that scored highest, the highest first: at most `number`.

    Only alerts that a detector explained. The messages are left in flight: the queue ends with the run.
    """
    of_device: dict[str, Mapping[str, Any]] = {}
    seen = 0
    while seen < _MOST:
        messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=_AT_ONCE).get("Messages", [])
        if not messages:
            break
        seen += len(messages)
        for message in messages:
            alert = msgspec.json.decode(message["Body"])["detail"]
            best = of_device.get(alert["key"])
            if "explanation" in alert and (best is None or alert["score"] > best["score"]):
                of_device[alert["key"]] = alert
    chosen = sorted(of_device.values(), key=lambda alert: (-alert["score"], alert["key"]))[:number]
    return tuple(map(_told, chosen))


def _told(alert: Mapping[str, Any]) -> Mapping[str, Any]:
    why = alert["explanation"]
    return {
        "event": alert["event"],
        "key": alert["key"],
        "severity": why["severity"],
        "score": alert["score"],
        "text": why["text"],
    }
