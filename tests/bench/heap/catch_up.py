"""Lets shards catch up through the real KCL daemon, with a child that only counts records, to test the heap."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from stream_app import app
from stream_app.daemon.launcher import LaunchOptions, run_daemon
from stream_app.daemon.supervisor import Restarts, Stop
from stream_app.local.leases import write_leases
from stream_app.local.server.process import LocalAws, start
from stream_app.resources import shipped

_TIMEOUT_S = 900.0
_POLL_S = 0.1
# Holding the first batch lets KCL's prefetch buffer fill up before the shard starts to catch up.
_HELD_SECONDS = 4.0
ONE_DAEMON = Restarts(limit=0)
_PUT_RECORDS, _PUT_BYTES = 500, 4_500_000

CHILD = """
import json, os, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
out = os.fdopen(os.dup(1), "wb", buffering=0)
held, read, data = float(sys.argv[1]), 0, sys.stdin.buffer
while line := data.readline():
    start = line[:200]
    if b'"records":[' in start:
        count = line.count(b'"partitionKey"')
        if count:
            time.sleep(held)
            held, read = 0, read + count
            print(json.dumps({"event": "read", "records": read, "batch": count, "bytes": len(line)}),
                  file=sys.stderr, flush=True)
        action = "processRecords"
    else:
        action = json.loads(line)["action"]
    out.write(json.dumps({"action": "status", "responseFor": action}).encode() + b"\\n")
"""


class Case(NamedTuple):
    """Input of a run: number of shards, bytes per record, records per shard."""

    shards: int
    size: int
    records: int


@dataclass
class Result:
    """Result of a run: `cpu_s` and `rss` (MiB) of the JVM; `out_of_memory` counts daemons that ran out."""

    case: Case
    java: str
    heap: str
    read: int
    code: int | None
    out_of_memory: int
    seconds: float
    cpu_s: float
    rss: float
    largest_batch: int

    @property
    def passed(self) -> bool:
        """Whether one daemon read all records."""
        return self.complete and not self.out_of_memory

    @property
    def complete(self) -> bool:
        """Whether all records were read."""
        return self.read == self.case.shards * self.case.records

    def to_json(self) -> dict[str, Any]:
        """Return the values as built-in types."""
        return {**self.__dict__, "case": self.case._asdict(), "passed": self.passed}


class _Watch:
    """Collects from log lines the records read by shard, the daemon's process id and out-of-memory errors."""

    def __init__(self) -> None:
        self.read: dict[str, int] = {}
        self.largest = 0
        self.pid: int | None = None
        self.out_of_memory = 0
        self.heap = ""

    def line(self, line: Mapping[str, Any]) -> None:
        """Process one log line."""
        if line.get("event") == "read":
            self.read[str(line["shard"])] = line["records"]
            self.largest = max(self.largest, line["batch"])
        elif line.get("event") == "daemon_started":
            self.pid = line["pid"]
        elif line.get("event") == "launcher_started":
            self.heap = line["heap"]
        elif line.get("event") == "out_of_memory":
            self.out_of_memory += 1


def catch_up(
    case: Case,
    folder: Path,
    *,
    environ: Mapping[str, str] | None = None,
    properties: Mapping[str, str | None] | None = None,
    held: float = _HELD_SECONDS,
    restarts: Restarts = ONE_DAEMON,
) -> Result:
    """Fill a stream of the embedded AWS, then let the daemon, with restarts as configured, read all of it.

    `environ` (JAVA_HOME, STREAM_APP_JAVA_HEAP) and `properties` override the shipped settings.
    """
    with start(log=folder / "aws.log") as aws:
        client = app.clients(aws.environment())
        _fill(client("kinesis"), case)
        write_leases(client("dynamodb"), client("kinesis"), application="heap", stream="heap", worker="w")
        return _read(case, folder, aws, dict(environ or {}), dict(properties or {}), held, restarts)


def _fill(kinesis: Any, case: Case) -> None:
    kinesis.create_stream(StreamName="heap", ShardCount=case.shards)
    kinesis.get_waiter("stream_exists").wait(StreamName="heap", WaiterConfig={"Delay": 1})
    data = b"x" * case.size
    width, each = 2**128 // case.shards, max(1, min(_PUT_RECORDS, _PUT_BYTES // case.size))
    for shard in range(case.shards):
        entry = {"Data": data, "PartitionKey": "k", "ExplicitHashKey": str(shard * width + width // 2)}
        for count in _parts(case.records, each):
            answer = kinesis.put_records(StreamName="heap", Records=[entry] * count)
            assert answer["FailedRecordCount"] == 0


def _parts(count: int, each: int) -> Iterator[int]:
    while count:
        yield min(each, count)
        count -= min(each, count)


def _read(
    case: Case,
    folder: Path,
    aws: LocalAws,
    environ: dict[str, str],
    properties: dict[str, str | None],
    held: float,
    restarts: Restarts,
) -> Result:
    child = folder / "child.py"
    child.write_text(CHILD)
    given: dict[str, str | None] = {
        "applicationName": "heap",
        "streamName": "heap",
        "workerId": "w",
        "executableName": f"{sys.executable} -IS {child} {held}",
        "kinesisEndpoint": aws.endpoint,
        "dynamoDBEndpoint": aws.endpoint,
        **properties,
    }
    watch, stop, codes = _Watch(), Stop(), list[int]()

    def daemon() -> None:
        codes.append(
            run_daemon(
                shipped("properties") / "local.properties",
                LaunchOptions(
                    {"PATH": os.environ["PATH"], **aws.environment(), **environ},
                    given,
                    restarts,
                    shards=case.shards,
                ),
                on_line=watch.line,
                stop=stop,
            )
        )

    thread, begun = threading.Thread(target=daemon), time.monotonic()
    thread.start()
    rss = cpu = 0.0
    expected = case.shards * case.records
    try:
        while (
            thread.is_alive()
            and sum(watch.read.values()) < expected
            and time.monotonic() - begun < _TIMEOUT_S
        ):
            time.sleep(_POLL_S)
            with suppress(psutil.Error):
                if watch.pid is not None:
                    jvm = psutil.Process(watch.pid)
                    rss, cpu = max(rss, jvm.memory_info().rss / 2**20), sum(jvm.cpu_times()[:2])
    finally:
        seconds = time.monotonic() - begun
        stop.request()
        thread.join()
        stop.close()
    return Result(
        case=case,
        java=environ.get("JAVA_HOME") or "bundled",
        heap=watch.heap,
        read=sum(watch.read.values()),
        code=codes[0] if codes else None,
        out_of_memory=watch.out_of_memory,
        seconds=round(seconds, 1),
        cpu_s=round(cpu, 1),
        rss=round(rss),
        largest_batch=watch.largest,
    )
