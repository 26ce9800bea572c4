"""A run that fails reports its outstanding work and status, also as a JSON document."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stream_app.cli import main as cli
from stream_app.errors import ConfigError, FatalError, Problem
from stream_app.ingest.producer import Sent
from stream_app.local.embedded import Embedded
from stream_app.local.run import embedded_run as run_module
from stream_app.local.run.progress import STUCK_SECONDS, Progress
from stream_app.local.run.status import RunStatus
from stream_app.local.run.waiting import wait_until_stored

SHARDS = 2


class Alive:
    """A daemon that never ends."""

    def check(self) -> None:
        pass


class FastClock:
    """A clock that advances at every call."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += STUCK_SECONDS / 10
        return self.now


@pytest.fixture
def embedded(clients: Callable[[str], Any], outputs: dict[str, str]) -> Embedded:
    clients("dynamodb").create_table(
        TableName="stream-app",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "leaseKey", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "leaseKey", "KeyType": "HASH"}],
    )
    return Embedded("stream-app", {}, outputs, clients, {})


def sent(count: int) -> Sent:
    return Sent({"stream": count}, {}, 1.0)


def test_waiting_ends_when_everything_is_drained(embedded: Embedded) -> None:
    wait_until_stored(embedded, sent(0), Alive(), RunStatus(), threading.Event())  # type: ignore[arg-type]


def test_a_stuck_run_names_its_queue_and_shard(embedded: Embedded) -> None:
    client, outputs = embedded.client, embedded.outputs
    for body in ("a", "b", "c"):
        client("sqs").send_message(QueueUrl=outputs["CorrectionsQueueUrl"], MessageBody=body)
    client("sqs").receive_message(QueueUrl=outputs["CorrectionsQueueUrl"])
    client("kinesis").put_record(StreamName=outputs["StreamName"], Data=b"{}", PartitionKey="p")
    status = RunStatus(progress=Progress(FastClock()))
    with pytest.raises(FatalError) as raised:
        wait_until_stored(embedded, sent(1), Alive(), status, threading.Event())  # type: ignore[arg-type]
    message = str(raised.value)
    assert "queue corrections (2 visible, 1 in flight)" in message
    assert "(not committed to its end)" in message
    assert "1 records were sent, 0 were processed" in message
    assert status.to_json()["waiting"]["queues"]["corrections"] == {"visible": 2, "in_flight": 1}


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (FatalError("the KCL daemon ended with code 3"), 1, "the KCL daemon ended with code 3"),
        (
            ConfigError([Problem("there is no data set x", "give a file")]),
            2,
            "there is no data set x (give a file)",
        ),
        (OSError("no space left"), 1, "OSError: no space left"),
    ],
)
def test_a_run_that_fails_early_prints_a_json_document(
    error: Exception, code: int, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(_options: Any, _clients: Any, status: RunStatus, _stop: Any) -> Any:
        status.note("playing")
        status.sent = 12
        raise error

    monkeypatch.setattr(run_module, "run", run)
    result = CliRunner().invoke(cli.app, ["run", "--json", "--folder", str(tmp_path)])
    found = json.loads(result.stdout)
    assert (found["balanced"], found["error"], found["stage"], found["sent"]) == (
        False,
        expected,
        "playing",
        12,
    )
    assert result.exception is error
    monkeypatch.setattr("sys.argv", ["stream-app", "run", "--json", "--folder", str(tmp_path)])
    if not isinstance(error, OSError):
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == code
