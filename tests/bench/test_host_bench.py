"""Measures the cost of one more shard with the forkserver: milliseconds until ready, and megabytes.

Runs real processes against the embedded AWS; the test plays the part of KCL's daemon. Writes build/bench/host.json.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from stream_app import app
from stream_app.consumer.memory_release import LOW_MEMORY_ENVIRONMENT
from stream_app.consumer.snapshots import S3Snapshots
from stream_app.daemon.forkserver_owner import run_forkserver
from stream_app.daemon.properties import render
from stream_app.forkserver import client
from stream_app.local.embedded import Embedded, embedded
from stream_app.resources import shipped
from stream_app.settings import read_properties
from stream_app.testing import Player, spawn
from tests.bench.hosted import by_kind, pss_mb, readings

SHARDS = 16
ROWS = 500
LAUNCHES = 40
APPLICATION = "bench"
OUT = Path("build/bench/host.json")


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    with embedded(
        app.clients, application=APPLICATION, shards=SHARDS, folder=tmp_path_factory.mktemp("aws")
    ) as running:
        yield running


@contextmanager
def running_host(aws: Embedded, folder: Path) -> Iterator[dict[str, str]]:
    """Run the real forkserver and yield the environment for its shards."""
    folder.mkdir()
    base = read_properties(shipped("properties") / "local.properties")
    file = folder / "effective.properties"
    file.write_text(
        render(base, {**aws.settings(), "app.segment_seconds": "1", "app.checkpoint_seconds": "1"})
    )
    environ = {
        **LOW_MEMORY_ENVIRONMENT,
        **aws.environ,
        "STREAM_APP_PROPERTIES": str(file),
        "STREAM_APP_LOG_LEVEL": "WARNING",
    }
    ready = threading.Event()
    with run_forkserver(folder, environ, lambda line: ready.set() if "pid" in line else None) as more:
        assert ready.wait(60)
        yield environ | more


Shard = tuple[Player, subprocess.Popen[bytes]]


def start(environ: dict[str, str], shard: int, sequence: str = "TRIM_HORIZON") -> tuple[Shard, float]:
    """Start a shard; return it once `initialize` is answered, with the milliseconds since its launch."""
    command = [sys.executable, "-I", "-S", str(client.__file__), "/bin/false"]
    begun = time.perf_counter()
    player, process = spawn(command, environ)
    player.initialize(name(shard), sequence)
    return (player, process), (time.perf_counter() - begun) * 1_000


def name(shard: int) -> str:
    return f"shardId-{shard:012d}"


def play(shards: list[Shard], devices: int, batches: int = 5) -> None:
    """Send batches to each shard, let the segments close, then leave the shards idle."""
    for batch in range(batches):
        for number, (player, _) in enumerate(shards):
            now = time.time_ns() // 1_000_000
            player.records(readings(number, batch, devices=devices, rows=ROWS, now_ms=now))
    time.sleep(2.5)  # segments close after one second
    for _ in range(2):
        for player, _ in shards:
            player.tick()
    assert all(player.checkpoints for player, _ in shards)
    time.sleep(10)  # memory is released every ten seconds
    for player, _ in shards:
        player.records(readings(99, 0, devices=1, rows=1, now_ms=time.time_ns() // 1_000_000))
        player.tick()


def end(shards: list[Shard]) -> None:
    for player, process in shards:
        player.close()
        assert process.wait(30) == 0


def total_mb(shards: list[Shard]) -> float:
    """Return the memory of the forkserver, its launchers and its forks."""
    kinds = by_kind(psutil.Process())
    assert len(kinds["shards"]) == len(kinds["launchers"]) == len(shards)
    return sum(sum(kinds[kind]) for kind in ("host", "shards", "launchers"))


def further_mb(environ: dict[str, str], devices: int | None) -> float:
    """Return the memory per additional shard with `devices` devices each (None: initialized, no records)."""
    measured = []
    for count in (1, SHARDS):
        shards = [start(environ, number)[0] for number in range(count)]
        if devices is not None:
            play(shards, devices)
        measured.append(total_mb(shards))
        end(shards)
    return (measured[1] - measured[0]) / (SHARDS - 1)


def report(**found: Any) -> None:
    OUT.parent.mkdir(parents=True, exist_ok=True)
    previous = json.loads(OUT.read_text()) if OUT.exists() else {}
    OUT.write_text(json.dumps(previous | found, indent=2))
    for what, value in found.items():
        print(f"{what:44} {value}")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("devices", [10, 100, 1_000])
def test_time_until_a_shard_is_ready_with_its_state(aws: Embedded, tmp_path: Path, devices: int) -> None:
    """Time from launch to the answer to `initialize`, including restoring a snapshot of `devices` devices."""
    with running_host(aws, tmp_path / "h") as environ:
        shard, _ = start(environ, 0)
        play([shard], devices, batches=6)
        sequence = shard[0].checkpoints[-1][0]
        end([shard])
        snapshots = S3Snapshots(aws.client("s3"), aws.outputs["BucketName"], APPLICATION)
        snapshot = snapshots.load(name(0), str(sequence))
        assert snapshot is not None
        durations = []
        for number in range(LAUNCHES):
            snapshots.save(name(number), str(sequence), snapshot)
            one, ms = start(environ, number, str(sequence))
            durations.append(ms)
            end([one])
    report(
        **{
            f"ready_ms_p50_{devices}_devices": round(statistics.median(durations), 1),
            f"ready_ms_max_{devices}_devices": round(max(durations), 1),
            f"snapshot_kb_{devices}_devices": round(len(snapshot) / 1024, 1),
        }
    )


@pytest.mark.timeout(600)
@pytest.mark.parametrize("devices", [None, 1, 10, 100])
def test_memory_per_additional_shard(aws: Embedded, tmp_path: Path, devices: int | None) -> None:
    with running_host(aws, tmp_path / "h") as environ:
        found = further_mb(environ, devices)
    report(
        **{f"mb_per_further_shard_{'empty' if devices is None else f'{devices}_devices'}": round(found, 2)}
    )


def test_memory_of_a_shard_without_the_host(aws: Embedded, tmp_path: Path) -> None:
    """For comparison: a shard in its own process."""
    with running_host(aws, tmp_path / "h") as environ:
        del environ["STREAM_APP_HOST"]
        begun = time.perf_counter()
        player, process = spawn([sys.executable, "-m", "stream_app.record_processor"], environ)
        player.initialize(name(0))
        ready = (time.perf_counter() - begun) * 1_000
        report(ready_ms_alone=round(ready), mb_alone=round(pss_mb(psutil.Process(process.pid)), 1))
        end([(player, process)])
