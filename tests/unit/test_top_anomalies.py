"""The anomalies in the summary of a run."""

from __future__ import annotations

import io
from dataclasses import fields
from typing import Any

import msgspec
from rich.console import Console

from stream_app.cli.views.summary import _strangest
from stream_app.local.run.report import Report
from stream_app.local.run.top_anomalies import top_anomalies


class Queue:
    """Returns each message once, in batches of ten like SQS."""

    def __init__(self, details: list[dict[str, Any]]) -> None:
        self._waiting = [{"Body": msgspec.json.encode({"detail": detail}).decode()} for detail in details]

    def receive_message(self, QueueUrl: str, MaxNumberOfMessages: int) -> dict[str, Any]:
        given, self._waiting = self._waiting[:MaxNumberOfMessages], self._waiting[MaxNumberOfMessages:]
        return {"Messages": given} if given else {}


def queue(details: list[dict[str, Any]]) -> Any:
    return Queue(details)


def alert(key: str, score: float) -> dict[str, Any]:
    why = {"severity": "low", "text": f"{key} scored {score:g}"}
    return {"event": "reading", "key": key, "score": score, "explanation": why}


def test_the_highest_scores_of_each_device_come_first() -> None:
    flagged = {"event": "reading", "key": "a", "score": None, "flag": "a check's, not explained"}
    details = [alert("abc"[at % 3], float(at)) for at in range(25)]
    told = top_anomalies(queue([flagged, *details]), "url", number=2)
    assert [(one["key"], one["text"]) for one in told] == [("a", "a scored 24"), ("c", "c scored 23")]
    assert top_anomalies(queue([flagged]), "url") == ()


def test_the_summary_shows_device_severity_and_explanation() -> None:
    nothing: dict[str, Any] = {field.name: () for field in fields(Report)}
    report = Report(**{**nothing, "strangest": top_anomalies(queue([alert("a", 2.0)]), "url")})
    console = Console(file=io.StringIO(), width=80)
    console.print(_strangest(report))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().split() == ["Strongest", "anomalies", "a", "low", "a", "scored", "2"]
