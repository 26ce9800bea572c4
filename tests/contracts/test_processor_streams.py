"""A record processor tolerates a failing stderr and any output of user code, alone or forked."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from stream_app.daemon.log import DaemonLog, Line
from stream_app.testing import Player
from tests.contracts.forkservers import hosting
from tests.contracts.test_record_processor import Launch
from tests.support import SHARD
from tests.unit.test_shard import reading

PLAIN = """
import os, sys
from contextlib import suppress
from dataclasses import replace
from stream_app import app
from stream_app import record_processor
from stream_app.consumer.shard import ShardConsumer
from stream_app.pipeline.registry import Registry
from stream_app.telemetry import log
from tests import samples, support

def calculate(batch):
    print("a user's print", end="")
    print("\\udcff and \\U0001f300", file=sys.stderr)
    print("x" * 5_000)
    with suppress(OSError):  # a system call of the user's own
        os.write(1, b"\\xff\\xfe is no UTF-8")
        os.write(2, b"\\x80 neither\\n")
    sys.stdout.flush()
    return {"doubled": 2 * batch["value"]}

class NoClients:
    def disconnect(self):
        pass

STORES = support.Stores()

class Checked(ShardConsumer):
    def shutdown_requested(self, checkpointer):
        fates = {fate[0] for fate in STORES.by_position().values()}
        if fates != {"passed"}:
            raise AssertionError(fates)
        super().shutdown_requested(checkpointer)

registry = Registry.of(
    [replace(samples.READING, calculate=calculate, verify=None)], {"reading": [samples.SCHEMAS["reading"]]}
)
app.load_settings = lambda environ: support.settings()
app.clients = lambda environ, region: NoClients()
app.consumer = lambda settings, client: Checked(
    replace(
        support.dependencies(STORES, registry, segment_records=2, checkpoint_seconds=1),
        note=lambda event, **fields: log.get().info(event, **fields),
        report=lambda summary: log.get().info(**summary.to_json()),
    )
)
"""
CLOSED = -99
ALONE = [sys.executable, "-c", PLAIN + "sys.exit(record_processor.main())"]
HOST = [sys.executable, "-c", PLAIN + "from stream_app.forkserver import main as host\nsys.exit(host.main())"]


@pytest.fixture(scope="module", params=["alone", "hosted"])
def launch(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launch]:
    from tests.contracts.forkservers import environ, launcher

    if request.param == "alone":
        yield Launch(ALONE, environ())
        return
    with hosting(tmp_path_factory.mktemp("host"), HOST) as hosted:
        yield Launch(launcher(["/bin/false"]), dict(hosted.environ))


@contextmanager
def full_disk() -> Iterator[int]:
    with Path("/dev/full").open("wb", buffering=0) as file:
        yield file.fileno()


@contextmanager
def without_a_reader() -> Iterator[int]:
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@contextmanager
def _unread(blocking: bool) -> Iterator[int]:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4_096)
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x")
    os.set_blocking(writing, blocking)
    yield writing
    os.close(reading)
    os.close(writing)


@contextmanager
def that_nobody_reads() -> Iterator[int]:
    with _unread(blocking=False) as fd:
        yield fd


@contextmanager
def closed() -> Iterator[int]:
    yield CLOSED


@contextmanager
def playing(launch: Launch, stderr: int) -> Iterator[tuple[Player, subprocess.Popen[bytes]]]:
    command = launch.command if stderr != CLOSED else ["sh", "-c", 'exec "$@" 2>&-', "sh", *launch.command]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr if stderr != CLOSED else None,
        env=launch.environ,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    player = Player(process.stdin, process.stdout)
    try:
        yield player, process
    finally:
        player.close()
        process.wait(timeout=60)


def shard(player: Player) -> None:
    """Process a shard; the consumer itself checks that all rows passed."""
    player.initialize(SHARD)
    player.records([reading(at) for at in range(4)])
    player.tick()
    player.shutdown_requested()


BROKEN: list[Callable[[], object]] = [full_disk, without_a_reader, that_nobody_reads, closed]


@pytest.mark.parametrize("broken", BROKEN)
def test_a_failing_stderr_does_not_affect_processing(launch: Launch, broken: Callable[[], object]) -> None:
    with broken() as stderr, playing(launch, stderr) as (player, process):  # type: ignore[attr-defined]
        shard(player)
        assert player.checkpoints == [(reading(3).sequence_number, 0)]
        assert player.stray == []
        player.close()
        assert process.wait(timeout=60) == 0


def test_output_of_user_code_does_not_corrupt_the_log(launch: Launch) -> None:
    with playing(launch, subprocess.PIPE) as (player, process):
        shard(player)
        player.close()
        assert process.stderr is not None
        written = process.stderr.read()
        process.stderr.close()
    assert player.stray == []
    seen: list[Line] = []
    daemon = DaemonLog(seen.append, lambda: "now")
    for line in written.decode("utf-8", "replace").splitlines():
        daemon.out(
            f"t\tERROR\tx\tDrainChildSTDERRTask\tReceived error line from subprocess [{line}] for shard {SHARD}"
        )
    daemon.flush()
    events = [line["event"] for line in seen]
    assert {"initialized", "reading", "batch", "segment", "shutdown requested"} <= set(events)
    assert not [line for line in seen if line["event"] == "stderr" and '"event"' in line["message"]]
