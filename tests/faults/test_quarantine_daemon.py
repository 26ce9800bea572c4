"""Records that end or hang their process, under the real KCL daemon, with processes killed on top.

What is killed for memory is killed by the kernel, in a control group; where this machine allows none, by itself.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stream_app import app
from stream_app.local.embedded import Embedded, embedded
from stream_app.local.leases import write_leases
from stream_app.local.run import drain
from stream_app.recovery.audit import checkpoints
from stream_app.recovery.audit.proof import audit
from stream_app.resources import shipped
from stream_app.settings import read_properties
from stream_app.sinks.quarantine import S3QuarantineStore
from tests.e2e.test_run import stored
from tests.faults import consuming as it
from tests.faults.consuming import Consumer
from tests.faults.memory_group import memory_group

pytestmark = pytest.mark.timeout(600)
SHARDS, WORKER, EVENT = 3, "the-one", "fragile"
GROUP = "STREAM_APP_TEST_GROUP"
ROUNDS, DEVICES, KILLS = 40, 30, 3

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": EVENT,
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "device", "type": "string"},
        {"name": "time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "value", "type": "double"},
        {"name": "note", "type": ["null", "string"], "default": None},
        {
            "name": "price",
            "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}],
            "default": None,
        },
    ],
}
MODULE = f"""
import os, signal
from pathlib import Path
from stream_app.api import Event

def memory():
    group = os.environ.get("{GROUP}")
    if not group:
        os.kill(os.getpid(), signal.SIGKILL)
    (Path(group) / "cgroup.procs").write_text(str(os.getpid()))
    taken = []
    while True:
        taken.append(bytes([1]) * 10_000_000)

def calculate(batch):
    for note in batch["note"].tolist():
        if note == "exit":
            os._exit(0)
        if note == "configuration":
            os._exit(2)
        while note == "loop":
            pass
        if note == "memory":
            memory()
    return {{"doubled": 2 * batch["value"]}}

EVENT = Event(name="{EVENT}", key="device", id="id", required=("device", "time"), calculate=calculate)
"""
POISON: dict[str, dict[str, Any]] = {
    "exit": {"note": "exit"},
    "configuration": {"note": "configuration"},
    "loop": {"note": "loop"},
    "memory": {"note": "memory"},
    "time": {"time": "0001-01-01T00:00:00+01:00"},
    "decimal": {"price": "1e1000000"},
}
DECIDED = {
    "exit": ("PROCESS_KILLED", "the process ended with exit code 0"),
    "configuration": ("PROCESS_KILLED", "the process ended with exit code 2"),
    "loop": ("TIMED_OUT", "processing "),
    "memory": ("PROCESS_KILLED", "the process was killed by SIGKILL"),
}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    folder = tmp_path_factory.mktemp("aws")
    with embedded(app.clients, application="quarantine", shards=1, folder=folder) as running:
        yield running


@dataclass
class Sender:
    """Devices of one stream. `sent` has the id of each record by its position."""

    kinesis: Any
    stream: str
    sent: dict[tuple[str, str], str] = field(default_factory=dict)

    def send(self, rounds: int, poison: dict[int, str]) -> None:
        """A record of each device a round, and in some rounds one of a poison kind."""
        for number in range(rounds):
            records = [self._record(f"{number}-{at}", f"device {at}") for at in range(DEVICES)]
            if number in poison:
                kind = poison[number]
                records.insert(DEVICES // 2, self._record(kind, f"device {number % DEVICES}", **POISON[kind]))
            self._put(records)
            time.sleep(0.1)  # devices send one after another, while the consumer reads

    def _record(self, name: str, device: str, **values: Any) -> dict[str, Any]:
        fields = {"id": name, "device": device, "time": "2026-01-31T00:00:00Z", "value": 1.5, **values}
        return {"Data": json.dumps({"event": EVENT, **fields}).encode(), "PartitionKey": device}

    def _put(self, records: list[dict[str, Any]]) -> None:
        answer = self.kinesis.put_records(StreamName=self.stream, Records=records)
        assert answer["FailedRecordCount"] == 0
        for record, taken in zip(records, answer["Records"], strict=True):
            self.sent[taken["ShardId"], taken["SequenceNumber"]] = json.loads(record["Data"])["id"]


@dataclass
class Scene:
    aws: Embedded
    name: str
    properties: dict[str, str]
    consumer: Consumer
    sender: Sender

    def drain(self) -> None:
        """Until every shard is committed to its end, and what failed is in the failure store."""
        client = self.aws.client
        queue = self.properties["app.dead_letter_queue"]
        while self._behind() or drain.queued(client("sqs"), queue):
            self.consumer.check()
            time.sleep(0.25)

    def _behind(self) -> list[str]:
        committed = checkpoints.read(self.aws.client("dynamodb"), self.name)
        return drain.uncommitted_shards(self.aws.client("kinesis"), self.name, committed)

    def stored(self) -> list[str]:
        tables = stored(self.aws.client("s3"), self.properties["app.bucket"])
        mine = [table for key, table in tables.items() if f"/{EVENT}/" in key]
        rows = [row for table in mine for row in table.select(["shard", "sequence", "id"]).to_pylist()]
        return [row["id"] for row in rows if (row["shard"], row["sequence"]) in self.sender.sent]


@pytest.fixture
def scene(
    request: pytest.FixtureRequest, aws: Embedded, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    name, client = f"quarantine-{time.time_ns()}", aws.client
    client("kinesis").create_stream(StreamName=name, ShardCount=SHARDS)
    client("kinesis").get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1})
    write_leases(client("dynamodb"), client("kinesis"), application=name, stream=name, worker=WORKER)
    here = {"applicationName": name, "streamName": name, "workerId": WORKER}
    here |= {"app.shard_host": request.param, "app.segment_seconds": "2", "app.checkpoint_seconds": "2"}
    properties = read_properties(shipped("properties") / "local.properties") | aws.settings() | here
    file = tmp_path / "this.properties"
    file.write_text("".join(f"{key} = {value}\n" for key, value in properties.items()))
    for folder, text in (("events", MODULE), ("schemas", json.dumps(SCHEMA))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{EVENT}.{'py' if folder == 'events' else 'avsc'}").write_text(text)
    with memory_group() as group:
        # A test's path would be too long for the host's socket.
        environ = {**aws.environ, "TMPDIR": str(tmp_path_factory.getbasetemp()), GROUP: group}
        consumer = Consumer(file, environ, tmp_path / "consumer.log", tmp_path)
        try:
            consumer.ready(SHARDS)
            yield Scene(aws, name, properties, consumer, Sender(client("kinesis"), name))
        finally:
            consumer.kill()


def gaps(lines: list[dict[str, Any]], shard: str) -> tuple[list[float], list[float]]:
    """Seconds between a shard's batches, and between its batches across a start. Not while it is itself inspected."""
    pauses: list[float] = []
    restarts: list[float] = []
    last, started, careful = None, False, False
    for line in lines:
        if line.get("shard") != shard or "ts" not in line:
            continue
        match line["event"]:
            case "initialized":
                started, careful = True, False
            case "quarantine_started":
                careful = True
            case "quarantine_ended":
                careful, last = False, None
            case "batch":
                now = datetime.fromisoformat(line["ts"]).timestamp()
                if last is not None and (started or not careful):
                    (restarts if started else pauses).append(now - last)
                last, started = now, False
    return pauses, restarts


def _sent_or_done(sent: Mapping[tuple[str, str], str], due: int, sending: Future[None]) -> bool:
    return len(sent) >= due or sending.done()


@pytest.mark.parametrize("scene", ["true", "false"], ids=["hosted", "alone"], indirect=True)
def test_a_run_with_every_kind_of_poison_record_balances(scene: Scene) -> None:
    rng, consumer, client = random.Random(1), scene.consumer, scene.aws.client
    kinds = list(POISON)
    rng.shuffle(kinds)
    poison = {6 * at + 2: kind for at, kind in enumerate(kinds)}
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(scene.sender.send, ROUNDS, poison)
        for part in range(1, KILLS + 1):
            due = part * ROUNDS * DEVICES // 5
            it.wait(partial(_sent_or_done, scene.sender.sent, due, sending))
            it.kill_shard(consumer, rng)
        sending.result()
    scene.drain()
    assert len(consumer.shards()) >= SHARDS
    found = audit(
        kinesis=client("kinesis"),
        s3=client("s3"),
        stream=scene.name,
        bucket=scene.properties["app.bucket"],
        consumer=scene.name,
        checkpoints=checkpoints.read(client("dynamodb"), scene.name),
    )
    assert found.balanced
    assert (found.total.missing, found.total.duplicated, found.total.pending) == (0, 0, 0)
    assert found.total.accepted == len(scene.sender.sent) == ROUNDS * DEVICES + len(POISON)
    assert sum(found.total.parked.values()) == len(POISON)
    assert sorted(scene.stored()) == sorted(set(scene.sender.sent.values()) - set(POISON))
    store = S3QuarantineStore(client("s3"), scene.properties["app.bucket"], scene.name)
    decided = {
        scene.sender.sent[one.shard, one.sequence]: one
        for shard in store.shards()
        for one in store.decisions(shard)
    }
    for kind, (code, reason) in DECIDED.items():
        assert decided[kind].code == code
        assert decided[kind].reason.startswith(reason)
    assert decided.keys() <= POISON.keys(), "no other record is to blame"
    assert not consumer.told.of("daemon_gave_up")
    assert consumer.stop() == 0
    told = [*consumer.told.of("record_quarantined"), *consumer.told.of("record_excluded")]
    assert {line["position"] for line in told} >= {str(one.position) for one in decided.values()}
    between = [gaps(consumer.told.lines, shard) for shard in {shard for shard, _ in scene.sender.sent}]
    longest = max(gap for _, restarts in between for gap in restarts)
    assert max(gap for pauses, _ in between for gap in pauses) <= longest, (
        "no shard waits for another's inspection"
    )
    assert consumer.family() == []
