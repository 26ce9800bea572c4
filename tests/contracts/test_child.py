"""The process that KCL starts for a shard: its stdout is the protocol's alone, its exit code says how it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream_app.testing import Player, spawn
from tests.samples import START, as_json
from tests.support import SHARD
from tests.unit.test_shard import reading

ROOT = Path(__file__).parents[2]
# The entry point itself, with a world in memory, and an event whose calculation writes to stdout in every way.
CHILD = """
import os, subprocess, sys
from dataclasses import replace
from stream_app import app, child
from stream_app.consumer.shard import ShardConsumer
from stream_app.pipeline.registry import Registry
from tests import samples, support

def calculate(batch):
    print("a user's print")
    print('{"action":"status","responseFor":"processRecords"}')
    sys.stdout.write("without an end")
    sys.stdout.flush()
    os.write(1, b"from C, without an end")
    subprocess.run(["echo", "from a child"], check=True)
    return {"doubled": 2 * batch["value"]}

noisy = replace(samples.READING, calculate=calculate)
registry = Registry.of([noisy], {"reading": [samples.SCHEMAS["reading"]]})
app.load_settings = lambda environ: support.settings()
app.clients = lambda environ, region: None
app.consumer = lambda settings, client: ShardConsumer(
    support.world(support.Stores(), registry, segment_records=2, checkpoint_seconds=1)
)
sys.exit(child.main())
"""


def environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "STREAM_APP_LOG_LEVEL": "INFO"}


@pytest.fixture
def child() -> Iterator[tuple[Player, subprocess.Popen[bytes]]]:
    player, process = spawn([sys.executable, "-c", CHILD], environ())
    yield player, process
    player.close()
    process.wait(timeout=60)


def test_whatever_a_calculation_prints_the_protocol_is_undisturbed(
    child: tuple[Player, subprocess.Popen[bytes]],
) -> None:
    player, process = child
    player.initialize(SHARD)
    player.records([reading(at) for at in range(4)])
    player.shutdown_requested()
    assert player.checkpoints == [(reading(3).sequence_number, 0)]
    assert player.stray == []
    player.close()
    assert process.wait(timeout=60) == 0


def test_signals_are_for_the_launcher(child: tuple[Player, subprocess.Popen[bytes]]) -> None:
    player, process = child
    player.initialize(SHARD)
    for number in (signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)
    player.records([reading(0)])
    player.shard_ended()
    assert player.checkpoints == [(None, None)]
    player.close()
    assert process.wait(timeout=60) == 0


@pytest.mark.parametrize(
    ("lines", "code", "words"),
    [
        (b"", 0, None),
        (b"nonsense\n", 1, "not of the protocol"),
        (
            json.dumps({"action": "initialize", "shardId": SHARD, "sequenceNumber": "5"}).encode(),
            1,
            "no state snapshot",
        ),
    ],
)
def test_how_it_ended_is_its_exit_code_and_one_line_of_log(
    lines: bytes, code: int, words: str | None
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=lines,
        capture_output=True,
        env=environ(),
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (code, b"")
    log = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["level"] for line in log].count("error") == (1 if words else 0)
    assert words is None or words in log[-1]["event"]


def test_a_wrong_configuration_is_told_at_once_and_ends_it_with_two(tmp_path: Path) -> None:
    file = tmp_path / "x.properties"
    file.write_text("app.segment_seconds = 0\napp.nothing = 1\n")
    done = subprocess.run(
        [sys.executable, "-m", "stream_app.child"],
        input=as_json("reading", {"time": START}),
        capture_output=True,
        env={**environ(), "STREAM_APP_PROPERTIES": str(file)},
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, b"")
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert len(told) == 4
    assert all(line["hint"] for line in told)
