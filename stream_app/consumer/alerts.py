"""Anomalies leave at once, before their segment closes: at least once, with an id that shows repeats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from stream_app.errors import FatalError, TransientError
from stream_app.event import Event
from stream_app.record import Batch, Position, Record

SOURCE = "stream-app.consumer"
DETAIL_TYPE = "AnomalyDetected"
CHECKS = "checks"
_ENTRIES = 10  # PutEvents takes ten
_LONGEST_KEY = 256  # as long as a partition key, so that ten alerts always fit
_PASSING = frozenset({"InternalFailure", "InternalException", "ThrottlingException", "ServiceUnavailable"})


def details(
    consumer: str, shard: str, records: Sequence[Record], batch: Batch, event: Event, detector: str
) -> list[dict[str, Any]]:
    """One alert a row of `batch`. The id is made of Position and detector, so a repeat has the same.

    A row that a check flagged never came before the model: its detector is "checks", `flag` names the check.
    """
    alerts = []
    scores = batch["score"].tolist() if "score" in batch else [None] * len(batch)
    flags = batch["flag"].tolist() if event.checks else [None] * len(batch)
    told = batch["explanation"].tolist() if "explanation" in batch else [None] * len(batch)
    numbers = {name: batch[name].astype(np.float64).tolist() for name in event.features}
    for at, row in enumerate(batch.rows):
        record = records[row]
        position = Position(shard, record.sequence_number, record.sub_sequence_number)
        judge, flag = (detector, None) if flags[at] is None else (CHECKS, flags[at])
        alerts.append(
            {
                "id": f"{position}/{judge}",
                "event": batch.event,
                "key": str(batch[event.key][at])[:_LONGEST_KEY],
                "score": None if flag is not None else scores[at],
                "detector": judge,
                **({} if flag is None else {"flag": flag}),
                **({} if told[at] is None else {"explanation": told[at]}),
                "values": {name: column[at] for name, column in numbers.items() if not np.isnan(column[at])},
                "consumer": consumer,
                "shard": shard,
                "sequence": position.sequence,
                "sub": position.sub,
                "arrived": record.approximate_arrival_timestamp,
            }
        )
    return alerts


class Outbox:
    """Puts alerts on the bus; what was accepted is not sent again when a flush is repeated."""

    def __init__(self, events: Any, bus: str) -> None:
        self._events, self._bus = events, bus
        self._waiting: list[dict[str, Any]] = []

    def add(self, alerts: Sequence[dict[str, Any]]) -> None:
        """Queue alerts for the next flush."""
        self._waiting += [self._entry(alert) for alert in alerts]

    def flush(self) -> None:
        """Raises TransientError while some are not accepted (call again), FatalError when they are refused."""
        while self._waiting:
            chunk = self._waiting[:_ENTRIES]
            answer = self._events.put_events(Entries=chunk)
            refused = [
                (entry, result["ErrorCode"])
                for entry, result in zip(chunk, answer["Entries"], strict=True)
                if result.get("ErrorCode")
            ]
            self._waiting[:_ENTRIES] = [entry for entry, _ in refused]
            lasting = sorted({code for _, code in refused if code not in _PASSING})
            if lasting:
                raise FatalError(f"the bus {self._bus} refuses alerts: {', '.join(lasting)}")
            if refused:
                raise TransientError(f"{len(refused)} alerts were not accepted")

    def _entry(self, alert: dict[str, Any]) -> dict[str, Any]:
        detail = msgspec.json.encode(alert).decode()
        resources = [alert["key"]]
        return {
            "EventBusName": self._bus,
            "Source": SOURCE,
            "DetailType": DETAIL_TYPE,
            "Resources": resources,
            "Detail": detail,
        }
