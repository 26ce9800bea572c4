"""Alerts: at least once, with an id by which repeats are known."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.consumer.alerts import Outbox, details
from stream_app.errors import FatalError, TransientError
from stream_app.record import Batch
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


def made(rows: Batch) -> list[dict[str, Any]]:
    return details("app", "shard", RECORDS, rows, READING, "Drift")


def test_an_alert_says_what_where_and_how_much() -> None:
    alerts = made(batch([1, 4], level=np.array([None, 2**40], dtype=object)))
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


def test_values_that_are_missing_are_left_out_and_a_long_key_is_cut() -> None:
    odd = batch([0], value=np.array([np.nan]), device=np.array(["x" * 10_000], dtype=object))
    (alert,) = made(odd)
    assert alert["values"] == {}
    assert alert["key"] == "x" * 256


class _Bus:
    """PutEvents: refuses entries by their number, with a code."""

    def __init__(self, refuse: dict[int, str]) -> None:
        self.refuse, self.count = refuse, 0
        self.accepted: list[dict[str, Any]] = []
        self.sizes: list[int] = []

    def put_events(self, *, Entries: list[dict[str, Any]]) -> dict[str, Any]:
        self.sizes.append(len(Entries))
        answers = []
        for entry in Entries:
            code = self.refuse.get(self.count)
            self.count += 1
            if code is None:
                self.accepted.append(entry)
            answers.append({"EventId": "1"} if code is None else {"ErrorCode": code})
        return {"Entries": answers}


def ids(entries: list[dict[str, Any]]) -> list[int]:
    return [json.loads(entry["Detail"])["score"] for entry in entries]


def alert(number: int) -> dict[str, Any]:
    return {"key": "a", "score": number}


@given(st.integers(0, 35), st.sets(st.integers(0, 60)))
def test_each_is_accepted_once_however_often_some_are_refused(count: int, refused: set[int]) -> None:
    bus = _Bus(dict.fromkeys(refused, "ThrottlingException"))
    outbox = Outbox(bus, "bus")
    outbox.add([alert(number) for number in range(count)])
    for _ in range(len(refused) + 1):
        try:
            outbox.flush()
        except TransientError:
            continue
        break
    assert sorted(ids(bus.accepted)) == list(range(count))
    assert max(bus.sizes, default=0) <= 10
    calls = len(bus.sizes)
    outbox.flush()
    assert len(bus.sizes) == calls  # nothing waits any more


def test_an_entry_names_its_device() -> None:
    bus = _Bus({})
    outbox = Outbox(bus, "bus")
    outbox.add([alert(1)])
    outbox.flush()
    (entry,) = bus.accepted
    assert (entry["EventBusName"], entry["DetailType"], entry["Resources"]) == (
        "bus",
        "AnomalyDetected",
        ["a"],
    )


def test_a_lasting_refusal_is_fatal_and_names_the_code() -> None:
    outbox = Outbox(_Bus({1: "ThrottlingException", 2: "NotAuthorizedForSource"}), "bus")
    outbox.add([alert(number) for number in range(3)])
    with pytest.raises(FatalError, match="NotAuthorizedForSource"):
        outbox.flush()
