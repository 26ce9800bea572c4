"""The form of alerts about anomalies; `outbox` sends them. The id of an alert identifies duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np

from stream_app.model.event import Event
from stream_app.model.record import Batch, Position, Record
from stream_app.model.records import Records

if TYPE_CHECKING:
    from mypy_boto3_events.type_defs import PutEventsRequestEntryTypeDef

Alert = dict[str, Any]
"""An alert as a JSON object; its values are of the event type, so their types are not known here."""
SOURCE = "stream-app.consumer"
DETAIL_TYPE = "AnomalyDetected"
CHECKS = "checks"
_MAX_KEY = 256  # the limit of a partition key, in characters
_MAX_DETAIL = 20_000  # characters; ten entries of one request may have 256 KB in all


class Alerts(Protocol):
    """Sends alerts before their segment closes. No method raises, because alerts must not stop a shard."""

    @property
    def waiting(self) -> int:
        """The number of alerts in memory that were not sent yet."""
        ...

    @property
    def dropped(self) -> int:
        """The number of alerts that were lost since `start`."""
        ...

    def start(self, shard: str, parents: Sequence[str]) -> None:
        """Start with a shard, and with the alerts that earlier consumers of it or of its parents stored."""
        ...

    def add(self, shard: str, records: Sequence[Record], batch: Batch) -> None:
        """Queue one alert for each row."""
        ...

    def flush(self) -> None:
        """Send queued alerts if the bus accepts them."""
        ...

    def secure(self, last: Position | None) -> None:
        """Store unsent alerts of records up to `last` (None: all), before a checkpoint passes these records."""
        ...


class NoAlerts:
    """Sends nothing, for an application without a bus; anomalies are marked in the files (protocol `Alerts`)."""

    waiting = dropped = 0

    def start(self, shard: str, parents: Sequence[str]) -> None:
        """Do nothing."""

    def add(self, shard: str, records: Sequence[Record], batch: Batch) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing."""

    def secure(self, last: Position | None) -> None:
        """Do nothing."""


def details(
    consumer: str, shard: str, records: Sequence[Record], batch: Batch, event: Event, detector: str
) -> list[Alert]:
    """Return one alert for each row of `batch`. Its id consists of the record's position and the detector.

    The detector never sees a row that a check flagged: its alert has the detector "checks" and the check's name as
    `flag`.
    """
    alerts: list[Alert] = []
    columns = Records.of(records)
    scores = batch["score"].tolist() if "score" in batch else [None] * len(batch)
    flags = batch["flag"].tolist() if event.checks else [None] * len(batch)
    explanations = batch["explanation"].tolist() if "explanation" in batch else [None] * len(batch)
    numbers = {name: batch[name].astype(np.float64).tolist() for name in event.features}
    subs, arrived = columns.subs[batch.rows].tolist(), columns.arrived[batch.rows].tolist()
    for at, row in enumerate(batch.rows.tolist()):
        position = Position(shard, columns.sequences.text(row), subs[at])
        source, flag = (detector, None) if flags[at] is None else (CHECKS, flags[at])
        alerts.append(
            {
                "id": f"{position}/{source}",
                "event": batch.event,
                "key": str(batch[event.key][at])[:_MAX_KEY],
                "score": None if flag is not None else scores[at],
                "detector": source,
                **({} if flag is None else {"flag": flag}),
                **({} if explanations[at] is None else {"explanation": explanations[at]}),
                "values": {name: column[at] for name, column in numbers.items() if not isnan(column[at])},
                "consumer": consumer,
                "shard": shard,
                "sequence": position.sequence,
                "sub": position.sub,
                "arrived": arrived[at],
            }
        )
    return alerts


def entry(alert: Alert, bus: str) -> PutEventsRequestEntryTypeDef:
    """Return the entry of PutEvents for an alert. Ten of them always fit into one request."""
    detail = _encoded(alert)
    for name in ("explanation", "values"):  # both are in the stored row
        if len(detail) > _MAX_DETAIL:
            alert = {key: value for key, value in alert.items() if key != name}
            detail = _encoded(alert)
    return {
        "EventBusName": bus,
        "Source": SOURCE,
        "DetailType": DETAIL_TYPE,
        "Resources": [alert["key"]],
        "Detail": detail,
    }


def _encoded(alert: Alert) -> str:
    return msgspec.json.encode(alert).decode()
