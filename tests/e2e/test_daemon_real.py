"""The real KCL MultiLangDaemon against the embedded AWS, with a small child that speaks the protocol."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from aws_kinesis_agg.aggregator import RecordAggregator

from stream_app.daemon.initial_position import starting_at
from stream_app.daemon.launcher import LaunchOptions, run_daemon
from stream_app.daemon.supervisor import Restarts, Stop
from stream_app.local.leases import write_leases
from stream_app.local.server.process import LocalAws, start
from stream_app.model.segment import position_from_token
from stream_app.recovery.audit.accepted import accepted
from stream_app.recovery.stream.read import shards
from stream_app.resources import shipped

Line = dict[str, Any]
PATIENCE = 50.0

CHILD = """
import json, os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
out = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
def tell(event, **more):
    print(json.dumps({"event": event, **more}), file=sys.stderr, flush=True)
def checkpoint(sequence):
    out.write(json.dumps({"action": "checkpoint", "sequenceNumber": sequence}) + "\\n")
    tell("checkpointed", reply=json.loads(sys.stdin.readline()), at=sequence)
tell("environment", names=sorted(os.environ))
last = None
for line in sys.stdin:
    message = json.loads(line)
    action = message["action"]
    if action == "initialize":
        tell("begin", at=message["sequenceNumber"])
    elif action == "processRecords" and message["records"]:
        last = message["records"][-1]["sequenceNumber"]
        tell("records", records=message["records"])
    elif action == "shutdownRequested" and last:
        checkpoint(last)
    elif action == "shardEnded":
        checkpoint(None)
    out.write(json.dumps({"action": "status", "responseFor": action}) + "\\n")
"""


class Running:
    """`run_daemon` in a thread, and what it told."""

    def __init__(self, properties: Path, environ: dict[str, str], overrides: dict[str, str | None]) -> None:
        self.lines: list[Line] = []
        self.stop = Stop()
        self.code: int | None = None
        self._news = threading.Condition()

        def work() -> None:
            self.code = run_daemon(
                properties,
                LaunchOptions(environ, overrides, Restarts(base_seconds=0)),
                on_line=self._take,
                stop=self.stop,
            )

        self._thread = threading.Thread(target=work)
        self._thread.start()

    def _take(self, line: Line) -> None:
        with self._news:
            self.lines.append(line)
            self._news.notify_all()

    def of(self, event: str) -> list[Line]:
        return [line for line in self.lines if line.get("event") == event]

    def wait(self, what: Callable[[], Any]) -> None:
        with self._news:
            assert self._news.wait_for(what, PATIENCE), self.lines[-20:]

    def end(self) -> int | None:
        self.stop.request()
        self._thread.join()
        self.stop.close()
        return self.code


Begin = Callable[..., Running]


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with start(log=tmp_path_factory.mktemp("aws") / "aws.log") as server:
        yield server


@pytest.fixture
def client(aws: LocalAws) -> Callable[[str], Any]:
    environ = aws.environment()
    make: Any = boto3.client
    return lambda service: make(
        service,
        endpoint_url=aws.endpoint,
        region_name=environ["AWS_REGION"],
        aws_access_key_id=environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environ["AWS_SECRET_ACCESS_KEY"],
    )


def given(aws: LocalAws, name: str, child: str) -> dict[str, str | None]:
    """What differs from the shipped properties here."""
    return {
        "applicationName": name,
        "workerId": "w",
        "executableName": child,
        "kinesisEndpoint": aws.endpoint,
        "dynamoDBEndpoint": aws.endpoint,
        "metricsLevel": "NONE",
    }


@pytest.fixture
def child(tmp_path: Path) -> str:
    program = tmp_path / "child.py"
    program.write_text(CHILD)
    return f"{sys.executable} -IS {program}"


@pytest.fixture
def begin(aws: LocalAws, child: str) -> Iterator[Begin]:
    begun: list[Running] = []

    def run(name: str, base: str = "local.properties", **overrides: str | None) -> Running:
        environ = {"PATH": os.environ["PATH"], **aws.environment(), "STREAM_APP_STREAM": name}
        these = {**given(aws, name, child), **overrides}
        begun.append(Running(shipped("properties") / base, environ, these))
        return begun[-1]

    yield run
    for running in begun:
        if running.code is None:
            running.end()


def make_stream(client: Callable[[str], Any], name: str, shards: int) -> Any:
    kinesis = client("kinesis")
    kinesis.create_stream(StreamName=name, ShardCount=shards)
    kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1})
    return kinesis


def lay_leases(client: Callable[[str], Any], name: str, **more: Any) -> int:
    kinesis, dynamodb = client("kinesis"), client("dynamodb")
    return write_leases(dynamodb, kinesis, application=name, stream=name, worker="w", **more)


def checkpoints(client: Callable[[str], Any], name: str) -> dict[str, str]:
    items = client("dynamodb").scan(TableName=name, ConsistentRead=True)["Items"]
    return {item["leaseKey"]["S"]: item["checkpoint"]["S"] for item in items}


def put(kinesis: Any, stream: str, *keys: str) -> dict[str, str]:
    """The last sequence number of each shard that got some."""
    answers = [kinesis.put_record(StreamName=stream, PartitionKey=key, Data=b"{}") for key in keys]
    return {answer["ShardId"]: answer["SequenceNumber"] for answer in answers}


def keys_seen(running: Running) -> set[str]:
    return {record["partitionKey"] for line in running.of("records") for record in line["records"]}


def test_the_daemon_survives_a_childs_crash_and_stops_with_a_last_checkpoint(
    begin: Begin, client: Callable[[str], Any]
) -> None:
    kinesis = make_stream(client, "life", 4)
    assert lay_leases(client, "life") == 4
    keys = {f"größe {n}" for n in range(32)}
    last = put(kinesis, "life", *keys)

    daemon = begin("life")
    daemon.wait(lambda: len(daemon.of("shard_initialized")) == 4 and keys_seen(daemon) == keys)
    assert {line["at"] for line in daemon.of("begin")} == {"TRIM_HORIZON"}
    jvm = psutil.Process(daemon.of("daemon_started")[0]["pid"])
    jvm.children()[0].send_signal(signal.SIGKILL)
    daemon.wait(lambda: len(daemon.of("shard_initialized")) == 8)
    (crash,) = daemon.of("child_failed")
    assert crash["shard"] in last
    assert [line["code"] for line in daemon.of("child_exited") if line["code"]] == [128 + signal.SIGKILL]
    assert len(daemon.of("daemon_restarting")) == 1
    # The three others were checkpointed while their daemon ended; the fourth is read again from its beginning.
    daemon.wait(lambda: len(daemon.of("records")) >= 5)
    assert daemon.end() == 0

    assert checkpoints(client, "life") == last
    replies = [line["reply"] for line in daemon.of("checkpointed")]
    assert {reply["error"] for reply in replies} == {None}
    assert {reply["action"] for reply in replies} == {"checkpoint"}
    loud = [line for line in daemon.lines if line["source"] == "kcl" and line["level"] in ("WARN", "ERROR")]
    assert {"child_failed", "child_exited"} <= {line["event"] for line in loud}
    environment = daemon.of("environment")[0]["names"]
    assert "STREAM_APP_PROPERTIES" in environment
    assert "STREAM_APP_STREAM" not in environment, "the effective file says it, overrides included"


def test_a_split_shard_ends_and_its_children_start(begin: Begin, client: Callable[[str], Any]) -> None:
    kinesis = make_stream(client, "split", 1)
    lay_leases(client, "split")
    daemon = begin("split")
    daemon.wait(lambda: daemon.of("shard_initialized"))
    put(kinesis, "split", "before")
    kinesis.split_shard(
        StreamName="split", ShardToSplit="shardId-000000000000", NewStartingHashKey=str(2**127)
    )
    daemon.wait(lambda: len(daemon.of("shard_initialized")) == 3)
    last = put(kinesis, "split", *map(str, range(16)))
    daemon.wait(lambda: keys_seen(daemon) == {"before", *map(str, range(16))})
    assert [line["shard"] for line in daemon.of("shard_ended")] == ["shardId-000000000000"]
    assert daemon.end() == 0
    assert checkpoints(client, "split") == {"shardId-000000000000": "SHARD_END", **last}


LAUNCHER = """
import json, os, sys
from pathlib import Path
from stream_app.daemon.launcher import LaunchOptions, run_daemon
from stream_app.daemon.log import json_lines
from stream_app.daemon.supervisor import Stop
overrides = json.loads(sys.argv[2])
on_line = json_lines(sys.stdout.buffer)
run_daemon(Path(sys.argv[1]), LaunchOptions(os.environ, overrides), on_line=on_line, stop=Stop())
"""


def test_no_process_outlives_a_killed_launcher_and_the_next_one_continues(
    begin: Begin, client: Callable[[str], Any], aws: LocalAws, child: str
) -> None:
    kinesis = make_stream(client, "killed", 2)
    lay_leases(client, "killed")
    first = put(kinesis, "killed", *map(str, range(8)))
    base = str(shipped("properties") / "local.properties")
    command = [sys.executable, "-c", LAUNCHER, base, json.dumps(given(aws, "killed", child))]
    environ = {**os.environ, **aws.environment(), "STREAM_APP_STREAM": "killed"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ) as launcher:
        assert launcher.stdout is not None
        lines = map(json.loads, launcher.stdout)
        jvm = psutil.Process(next(line["pid"] for line in lines if line["event"] == "daemon_started"))
        for _ in range(2):
            assert next(line for line in lines if line["event"] == "records")
        family = [jvm, *jvm.children()]
        launcher.kill()
    assert len(family) == 3
    assert psutil.wait_procs(family, PATIENCE)[1] == []

    daemon = begin("killed")
    daemon.wait(lambda: len(daemon.of("records")) == 2)
    assert {line["at"] for line in daemon.of("begin")} == {"TRIM_HORIZON"}
    assert daemon.end() == 0
    assert checkpoints(client, "killed") == first


def test_a_consumer_starts_at_a_timestamp_with_production_settings(
    begin: Begin, client: Callable[[str], Any]
) -> None:
    kinesis = make_stream(client, "late", 1)
    put(kinesis, "late", "before")
    boundary = int(time.time()) + 1
    while time.time() < boundary:  # a starting point is a whole second
        time.sleep(0.01)
    put(kinesis, "late", "after")
    lay_leases(client, "late", position="AT_TIMESTAMP")
    daemon = begin("late", "production.properties", **starting_at(boundary))
    daemon.wait(lambda: daemon.of("records"))
    assert keys_seen(daemon) == {"after"}
    assert [line["at"] for line in daemon.of("begin")] == ["AT_TIMESTAMP"]
    assert daemon.end() == 0


def aggregate_of(name: str, explicit: Sequence[str]) -> bytes:
    packed = RecordAggregator()
    for at, hash_key in enumerate(explicit):
        packed.add_user_record(f"{name}/{at}", b"{}", hash_key)
    content: bytes = packed.clear_and_get().get_contents()[2]
    return content


def test_kcl_delivers_the_records_that_the_audit_predicts(begin: Begin, client: Callable[[str], Any]) -> None:
    """KCL drops what stands at or behind a hash key that it cannot read, and misrouted aggregates whole."""
    kinesis = make_stream(client, "packed", 1)
    lay_leases(client, "packed")
    (before,) = [shard["ShardId"] for shard in kinesis.list_shards(StreamName="packed")["Shards"]]
    aggregates = {
        "good": ("1", "2"),
        "undefined": ("1", "undefined", "2"),
        "first": ("x", "1"),
        "signed": ("+1", "-0", "0" * 5_000 + "3"),
        "long": ("1", "9" * 4_301, "2"),
        "negative": ("1", "-1"),
        "spaced": ("1", " 2"),
        "digits": ("1", "٤٢", "2"),
    }
    for name, explicit in aggregates.items():
        kinesis.put_record(StreamName="packed", PartitionKey=name, Data=aggregate_of(name, explicit))
    kinesis.put_record(StreamName="packed", PartitionKey="last", Data=b"{}")
    daemon = begin("packed")
    daemon.wait(lambda: "last" in keys_seen(daemon))
    assert daemon.end() == 0
    seen = {
        (record["sequenceNumber"], record["subSequenceNumber"])
        for line in daemon.of("records")
        for record in line["records"]
    }
    found = accepted(kinesis, "packed", shards(kinesis, "packed")[0])
    assert found.shard == before
    assert found.unread is not None
    said = {
        (position.sequence, position.sub)
        for token, lost in zip(found.tokens.to_pylist(), found.misrouted | found.unread, strict=True)
        if not lost and (position := position_from_token(found.shard, token))
    }
    assert seen == said
    assert (len(said), int(found.unread.sum()), int(found.misrouted.sum())) == (2 + 1 + 3 + 1 + 3 + 1, 5, 5)
