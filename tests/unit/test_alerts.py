"""The content of an alert, with an ID by which duplicates can be recognised."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from stream_app.consumer.alerting.alerts import details, entry
from stream_app.model.record import Batch
from stream_app.testing import record
from tests.samples import READING

RECORDS = [record(b"", at, sub=at % 2) for at in range(5)]


def batch(rows: list[int], **columns: Any) -> Batch:
    n = len(rows)
    known = {
        "device": np.array(["a"] * n, dtype=object),
        "value": np.arange(n) + 0.5,
        "level": np.array([None] * n, dtype=object),
        "score": np.arange(n) + 30.0,
    }
    return Batch("reading", {**known, **columns}, np.array(rows))


def alerts_of(rows: Batch) -> list[dict[str, Any]]:
    return details("app", "shard", RECORDS, rows, READING, "Drift")


def test_an_alert_contains_event_position_score_and_values() -> None:
    alerts = alerts_of(batch([1, 4], level=np.array([None, 2**40], dtype=object)))
    assert alerts[0] == {
        "id": f"shard/{RECORDS[1].sequence_number}.1/Drift",
        "event": "reading",
        "key": "a",
        "score": 30.0,
        "detector": "Drift",
        "values": {"value": 0.5},
        "consumer": "app",
        "shard": "shard",
        "sequence": RECORDS[1].sequence_number,
        "sub": 1,
        "arrived": RECORDS[1].arrived,
    }
    assert alerts[1]["id"] == f"shard/{RECORDS[4].sequence_number}/Drift"
    assert alerts[1]["values"] == {"value": 1.5, "level": 2.0**40}


def test_missing_values_are_omitted_and_a_long_key_is_truncated() -> None:
    odd = batch([0], value=np.array([np.nan]), device=np.array(["x" * 10_000], dtype=object))
    (alert,) = alerts_of(odd)
    assert alert["values"] == {}
    assert alert["key"] == "x" * 256


@pytest.mark.parametrize("name", ["explanation", "values"])
def test_an_oversized_alert_omits_fields_that_are_in_the_stored_row(name: str) -> None:
    large: dict[str, Any] = {"explanation": "x" * 50_000, "values": {str(at): 0.5 for at in range(9_000)}}
    (alert,) = alerts_of(batch([0]))
    sent = entry({**alert, "explanation": "short", name: large[name]}, "bus")
    detail = json.loads(sent["Detail"])
    assert name not in detail
    assert len(sent["Detail"]) <= 20_000
    assert detail["id"] == alert["id"]


def test_an_entry_has_the_device_as_its_resource() -> None:
    sent = entry({"key": "a", "score": 1}, "bus")
    assert (sent["EventBusName"], sent["DetailType"], sent["Resources"]) == ("bus", "AnomalyDetected", ["a"])
