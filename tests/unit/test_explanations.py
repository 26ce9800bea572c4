"""The explanation of an anomaly is passed from the detector to the alert, and is not stored."""

from __future__ import annotations

import numpy as np

from anomaly.nearest import NearestValue
from stream_app.consumer.alerting.alerts import details
from stream_app.model.event import Event
from stream_app.model.record import Batch, Record
from stream_app.pipeline.score import score
from stream_app.sinks.columns import stored_columns

EVENT = Event(name="reading", key="device", features=("a",), detector=NearestValue)
ROWS = 400


def scored() -> Batch:
    values = np.random.default_rng(1).normal(size=ROWS).round(1)
    values[300] = 99.0
    columns = {
        "device": np.array(["d"] * ROWS, dtype=object),
        "time": np.datetime64("2024-01-01", "ms") + np.arange(ROWS) * np.timedelta64(1, "h"),
        "a": values,
    }
    batch = Batch("reading", columns, np.arange(ROWS))
    return score(batch, EVENT, NearestValue(["a"]))


def test_only_anomalies_are_explained() -> None:
    batch = scored()
    explained = [why is not None for why in batch["explanation"]]
    assert explained == batch["anomaly"].tolist()
    assert explained[300]


def test_the_alert_contains_the_explanation() -> None:
    batch = scored()
    records = [Record(b"", "d", str(row), row) for row in range(ROWS)]
    alerts = details("app", "shard", records, batch.take(batch["anomaly"]), EVENT, "NearestValue")
    alert = next(alert for alert in alerts if alert["sequence"] == "300")
    assert alert["explanation"]["feature"] == "a"
    assert "a is 99; the nearest value seen is" in alert["explanation"]["text"]


def test_explanations_are_not_stored() -> None:
    assert stored_columns(scored())[-2:] == ["score", "anomaly"]
    assert "explanation" not in stored_columns(scored())
