"""What is said on the bus about an anomaly; `alert_outbox` sends it, with an id by which repeats are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any, Protocol

import msgspec
import numpy as np

from stream_app.model.event import Event
from stream_app.model.record import Batch, Position, Record
from stream_app.model.records import Records

SOURCE = "stream-app.consumer"
DETAIL_TYPE = "AnomalyDetected"
CHECKS = "checks"
_LONGEST_KEY = 256  # as long as a partition key
_LONGEST_DETAIL = 20_000  # ten entries of a call may have 256 KB together


class Alerts(Protocol):
    """Tells of anomalies before their segment closes. Nothing here raises: alerts never stop a shard."""

    @property
    def waiting(self) -> int:
        """How many are in memory, not sent yet."""
        ...

    @property
    def dropped(self) -> int:
        """How many were lost since `start`."""
        ...

    def start(self, shard: str, parents: Sequence[str]) -> None:
        """Begin with a shard, and with what earlier consumers of it could not send."""
        ...

    def add(self, shard: str, records: Sequence[Record], batch: Batch) -> None:
        """Queue one alert a row."""
        ...

    def flush(self) -> None:
        """Send what is queued, if the bus takes it."""
        ...

    def secure(self, last: Position | None) -> None:
        """Store what was not sent of records up to `last` (None: of all), before a checkpoint passes them."""
        ...


class NoAlerts:
    """For an application without a bus: the anomaly column in the files is all there is (protocol `Alerts`)."""

    waiting = dropped = 0

    def start(self, shard: str, parents: Sequence[str]) -> None:
        """Nothing was kept."""

    def add(self, shard: str, records: Sequence[Record], batch: Batch) -> None:
        """Nothing is queued."""

    def flush(self) -> None:
        """Nothing waits."""

    def secure(self, last: Position | None) -> None:
        """Nothing waits."""


def details(
    consumer: str, shard: str, records: Sequence[Record], batch: Batch, event: Event, detector: str
) -> list[dict[str, Any]]:
    """One alert a row of `batch`. The id is made of Position and detector, so a repeat has the same.

    A row that a check flagged never came before the model: its detector is "checks", `flag` names the check.
    """
    alerts: list[dict[str, Any]] = []
    columns = Records.of(records)
    scores = batch["score"].tolist() if "score" in batch else [None] * len(batch)
    flags = batch["flag"].tolist() if event.checks else [None] * len(batch)
    told = batch["explanation"].tolist() if "explanation" in batch else [None] * len(batch)
    numbers = {name: batch[name].astype(np.float64).tolist() for name in event.features}
    subs, arrived = columns.subs[batch.rows].tolist(), columns.arrived[batch.rows].tolist()
    for at, row in enumerate(batch.rows.tolist()):
        position = Position(shard, columns.sequences.text(row), subs[at])
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
                "values": {name: column[at] for name, column in numbers.items() if not isnan(column[at])},
                "consumer": consumer,
                "shard": shard,
                "sequence": position.sequence,
                "sub": position.sub,
                "arrived": arrived[at],
            }
        )
    return alerts


def entry(alert: Mapping[str, Any], bus: str) -> dict[str, Any]:
    """The entry of PutEvents that carries an alert. Ten of them always fit into one call."""
    detail = _encoded(alert)
    for name in ("explanation", "values"):  # both can be read in the stored row
        if len(detail) > _LONGEST_DETAIL:
            alert = {key: value for key, value in alert.items() if key != name}
            detail = _encoded(alert)
    return {
        "EventBusName": bus,
        "Source": SOURCE,
        "DetailType": DETAIL_TYPE,
        "Resources": [alert["key"]],
        "Detail": detail,
    }


def _encoded(alert: Mapping[str, Any]) -> str:
    return msgspec.json.encode(alert).decode()
