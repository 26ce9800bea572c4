"""Runs 64 shards with the real KCL daemon: audits the records and measures memory by kind of process.

Ten devices send to each shard. Writes build/bench/shards.json.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from stream_app import app
from stream_app.daemon.supervisor import Restarts
from stream_app.local.daemon_thread import DaemonThread
from stream_app.local.embedded import Embedded, embedded
from stream_app.local.leases import write_leases
from stream_app.local.run import drain
from stream_app.local.run.tracker import Tracker
from stream_app.recovery.audit import checkpoints
from stream_app.recovery.audit.proof import audit
from stream_app.resources import shipped
from tests.bench.hosted import by_kind, envelopes

SHARDS = 64
DEVICES = 10
ROUNDS = 60  # one reading from each device per round
READINGS = SHARDS * DEVICES * ROUNDS
MAX_MB = 3_000
EMULATION = ("embedded AWS", "other")
OUT = Path("build/bench/shards.json")


@pytest.mark.timeout(900)
def test_64_shards_fit_on_a_machine(tmp_path: Path) -> None:
    with embedded(app.clients, application="shards", shards=SHARDS, folder=tmp_path) as aws:
        kinesis = aws.client("kinesis")
        stream = aws.outputs["StreamName"]
        write_leases(aws.client("dynamodb"), kinesis, application="shards", stream=stream, worker="w")
        watch = Watch()
        with (tmp_path / "daemon.log").open("wb") as log, daemon(aws, watch, log) as running:
            wait(running, lambda: watch.tracker.ready_s(SHARDS) is not None)
            watch.launched()
            begun = time.monotonic()
            for number in range(ROUNDS):
                publish(kinesis, stream, number)
                time.sleep(max(0.0, begun + number + 1 - time.monotonic()))
            wait(running, lambda: caught_up(aws, stream))
            time.sleep(10)
            memory = by_kind(psutil.Process())
        committed = checkpoints.read(aws.client("dynamodb"), "shards")
        found = audit(
            kinesis=kinesis,
            s3=aws.client("s3"),
            stream=stream,
            bucket=aws.outputs["BucketName"],
            consumer="shards",
            checkpoints=committed,
        )
    report(memory, watch)
    assert found.balanced
    assert found.total.accepted == READINGS
    assert running.restarts == 0
    assert len(memory["shards"]) == len(memory["launchers"]) == SHARDS
    assert sum(sum(sizes) for kind, sizes in memory.items() if kind not in EMULATION) <= MAX_MB


class Watch:
    """Receives the daemon's log lines: feeds a tracker and records when each shard was initialized."""

    def __init__(self) -> None:
        self.tracker = Tracker()
        self.initialized: list[float] = []
        self.started: list[float] = []

    def line(self, line: dict[str, Any]) -> None:
        self.tracker.line(line)
        if line.get("event") == "initialized":
            self.initialized.append(datetime.fromisoformat(str(line["ts"])).timestamp())

    def launched(self) -> None:
        """Record start times of the launchers; the n-th to start is assumed to be the n-th to become ready."""
        for process in psutil.Process().children(recursive=True):
            if "trap '' INT TERM" in " ".join(process.cmdline()):
                self.started.append(process.create_time())

    def ready_ms(self) -> Sequence[float]:
        """Return milliseconds until ready by shard; empty if lost leases caused shards to start twice."""
        if len(self.initialized) != len(self.started):
            return []
        pairs = zip(sorted(self.started), sorted(self.initialized), strict=True)
        return [1_000 * (ready - started) for started, ready in pairs]


def daemon(aws: Embedded, watch: Watch, log: Any) -> DaemonThread:
    return DaemonThread(
        shipped("properties") / "local.properties",
        environ=aws.environ,
        overrides={**aws.settings(), "workerId": "w"},
        on_line=watch.line,
        log=log,
        restarts=Restarts(limit=0),
        before=lambda _worker: None,
    )


def wait(running: DaemonThread, done: Any) -> None:
    while not done():
        running.check()
        time.sleep(0.5)


def caught_up(aws: Embedded, stream: str) -> bool:
    committed = checkpoints.read(aws.client("dynamodb"), "shards")
    return not drain.uncommitted_shards(aws.client("kinesis"), stream, committed)


def publish(kinesis: Any, stream: str, number: int) -> None:
    """Put one reading of each device directly on its shard by explicit hash key."""
    for chunk in chunks(list(entries(number)), 500):
        answer = kinesis.put_records(StreamName=stream, Records=chunk)
        assert answer["FailedRecordCount"] == 0


def entries(number: int) -> Iterator[dict[str, Any]]:
    now = time.time_ns() // 1_000_000
    width = 2**128 // SHARDS
    for shard in range(SHARDS):
        for body in envelopes(shard, number, devices=DEVICES, rows=DEVICES, now_ms=now):
            yield {
                "Data": json.dumps(body).encode(),
                "PartitionKey": body["resources"][0],
                "ExplicitHashKey": str(shard * width + width // 2),
            }


def chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    for at in range(0, len(items), size):
        yield items[at : at + size]


def report(memory: Mapping[str, Sequence[float]], watch: Watch) -> None:
    print(f"\n{'kind':24}{'count':>8}{'total MB':>12}{'mean':>8}{'max':>8}")
    for kind, sizes in sorted(memory.items()):
        mean = statistics.mean(sizes)
        print(f"{kind:24}{len(sizes):8}{sum(sizes):12.1f}{mean:8.1f}{max(sizes):8.1f}")
    ready = watch.ready_ms()
    if ready:
        print(
            f"started together, ready after {statistics.median(ready):.0f} ms (median), {max(ready):.0f} ms (maximum)"
        )
    OUT.parent.mkdir(parents=True, exist_ok=True)
    pss = {kind: [round(size, 2) for size in sizes] for kind, sizes in memory.items()}
    OUT.write_text(json.dumps({"pss_mb": pss, "ready_ms": [round(ms) for ms in ready]}, indent=2))
