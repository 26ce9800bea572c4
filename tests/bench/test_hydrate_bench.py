"""Measures throughput and memory of the hydrate function: `make bench ARGS='-k hydrate'`.

The function and the embedded AWS run in separate processes on the same cores, and a put costs the embedded S3 about
as much CPU time as it costs the function; `AWS share` is the embedded AWS's share of all CPU time. The floor is the
rate of bare puts with the same client and the same number of threads, without any other work.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from stream_app import app, lambdas
from stream_app.aws.objects import keys
from stream_app.local.server import process as aws
from stream_app.recovery.hydrate.results import DEAD_LETTERS
from tests import samples
from tests.contracts.hydrating import BUCKET, STREAM, dead_letter_at, event, of_pipe, own

RECORDS = 10_000
OUT = Path("build/bench/hydrate.json")
_GOOD = samples.as_json("nothing", {"station": "Dongsi", "pm25": 12.5, "padding": "x" * 250})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[aws.LocalAws]:
    with aws.start(log=tmp_path_factory.mktemp("aws") / "aws.log") as running:
        yield running


@pytest.fixture(scope="module")
def client(server: aws.LocalAws) -> Any:
    clients = app.clients({**os.environ, **server.environment()})
    clients("kinesis").create_stream(StreamName=STREAM, ShardCount=4)
    return clients


@pytest.fixture(scope="module")
def dead_letters(client: Any) -> list[Any]:
    """Dead letters of 10,000 records on four shards, ordered by shard and sequence number."""
    kinesis, found = client("kinesis"), []
    for start in range(0, RECORDS, 500):
        entries: list[dict[str, Any]] = [
            {"Data": _GOOD, "PartitionKey": f"station {n % 97}"} for n in range(start, start + 500)
        ]
        answer = kinesis.put_records(StreamName=STREAM, Records=entries)
        found += [
            dead_letter_at(done["ShardId"], done["SequenceNumber"], entry["PartitionKey"])
            for done, entry in zip(answer["Records"], entries, strict=True)
        ]
    return sorted(found, key=lambda one: (one.shard, int(one.sequence)))


def run(server: aws.LocalAws, events: Sequence[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Hydrate events in a child process and return its measurements."""
    file = folder / "events.jsonl"
    file.write_text("\n".join(map(json.dumps, events)), encoding="utf-8")
    environ = {
        **os.environ,
        **server.environment(),
        "STREAM_APP_BUCKET": BUCKET,
        "STREAM_APP_LOG_LEVEL": "WARNING",
    }
    command = [sys.executable, "-m", "tests.bench.hydrate_child", str(file)]
    with (folder / "child.log").open("wb") as log:
        done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, stderr=log, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def batches(bodies: Sequence[Any], size: int) -> list[dict[str, Any]]:
    return [event(*bodies[start : start + size]) for start in range(0, len(bodies), size)]


def ranges(dead_letters: Sequence[Any], size: int) -> list[dict[str, Any]]:
    """Return dead letters of EventBridge Pipes, each for up to `size` consecutive records of one shard."""
    shards: dict[str, list[Any]] = {}
    for one in dead_letters:
        shards.setdefault(one.shard, []).append(one)
    return [
        of_pipe(records[n : n + size]) for records in shards.values() for n in range(0, len(records), size)
    ]


def floor(client: Any) -> float:
    """Return bare puts per second."""
    s3, body = lambdas._without_expect_header(client("s3")), b"x" * 1_000

    def put(number: int) -> None:
        s3.put_object(Bucket=BUCKET, Key=f"floor/{number}", Body=body, Tagging="status=open", IfNoneMatch="*")

    started = time.perf_counter()
    with ThreadPoolExecutor(lambdas._THREADS) as threads:
        list(threads.map(put, range(2_000)))
    return 2_000 / (time.perf_counter() - started)


def test_hydrate(server: aws.LocalAws, client: Any, dead_letters: list[Any], tmp_path: Path) -> None:
    scenarios = {
        "our own, 10 a call": partial(batches, list(map(own, dead_letters)), 10),
        "our own, 100 a call": partial(batches, list(map(own, dead_letters)), 100),
        "ranges of 1, 100 a call": partial(batches, ranges(dead_letters, 1), 100),
        "ranges of 100, 10 a call": partial(batches, ranges(dead_letters, 100), 10),
    }
    rows = []
    for name, events in scenarios.items():
        client("s3").create_bucket(Bucket=BUCKET)
        rate, before = floor(client), cpu_of(server)
        measured = run(server, events(), tmp_path)
        measured["aws_cpu_seconds"] = cpu_of(server) - before
        stored = sum(1 for _ in keys(client("s3"), BUCKET, "failures/"))
        assert (stored, measured["again"]) == (RECORDS, 0)
        records = sum(1 for _ in keys(client("s3"), BUCKET, DEAD_LETTERS))
        assert records == (
            0 if name.startswith("our own") else len(ranges(dead_letters, int(name.split()[2].strip(","))))
        )
        # Detects a memory leak, or a range that is held in memory as a whole.
        assert measured["mb_over_import"] <= 200
        rows.append(
            {
                "what": name,
                "records_per_s": RECORDS / measured["seconds"],
                "of_floor": RECORDS / measured["seconds"] / rate,
                "floor_puts_per_s": rate,
                "aws_share_of_cpu": measured["aws_cpu_seconds"]
                / (measured["aws_cpu_seconds"] + measured["cpu_seconds"]),
                **measured,
            }
        )
        empty(client("s3"))
    report(rows)


def cpu_of(server: aws.LocalAws) -> float:
    """Return the CPU seconds used by the embedded AWS."""
    process = psutil.Process(server.pid)
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def empty(s3: Any) -> None:
    found = list(keys(s3, BUCKET, ""))
    for start in range(0, len(found), 1_000):
        objects = [{"Key": key} for key in found[start : start + 1_000]]
        s3.delete_objects(Bucket=BUCKET, Delete={"Objects": objects, "Quiet": True})
    s3.delete_bucket(Bucket=BUCKET)


_TABLE = {
    "hydrate, 10,000 records": "what",
    "records/s": "records_per_s",
    "floor/s": "floor_puts_per_s",
    "of floor": "of_floor",
    "CPU s": "cpu_seconds",
    "AWS CPU s": "aws_cpu_seconds",
    "AWS share": "aws_share_of_cpu",
    "import MB": "import_mb",
    "MB over it": "mb_over_import",
}


def report(rows: Sequence[dict[str, Any]]) -> None:
    """Print a table and write all measurements as JSON."""
    line = "{:<26}" + " {:>10}" * (len(_TABLE) - 1)
    print("\n" + line.format(*_TABLE))
    for row in rows:
        name, *figures = (row[field] for field in _TABLE.values())
        print(line.format(name, *(f"{one:,.2f}" if one < 10 else f"{one:,.0f}" for one in figures)))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    summary = {
        "records": RECORDS,
        "records_per_s": rows[0]["records_per_s"],
        "mb_over_import": max(row["mb_over_import"] for row in rows),
        "scenarios": list(rows),
    }
    OUT.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
