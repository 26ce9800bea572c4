"""The process that KCL starts for a shard: stdout carries only the protocol; the exit code reports the outcome.

Every test runs alone and with a fork server.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from stream_app.errors import CONFIG_ERROR
from stream_app.testing import ConsumerEndedError, Player, spawn
from tests.contracts.forkservers import ALONE, environ, hosting, launcher
from tests.samples import START, as_json
from tests.support import SHARD
from tests.unit.test_shard import reading


class Launch(NamedTuple):
    """The command and environment that start a record processor."""

    command: list[str]
    environ: dict[str, str]


@pytest.fixture(scope="module", params=["alone", "hosted"])
def launch(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launch]:
    if request.param == "alone":
        yield Launch(ALONE, environ())
        return
    with hosting(tmp_path_factory.mktemp("host")) as hosted:
        yield Launch(launcher(["/bin/false"]), dict(hosted.environ))


@pytest.fixture
def child(launch: Launch) -> Iterator[tuple[Player, subprocess.Popen[bytes]]]:
    player, process = spawn(launch.command, launch.environ)
    yield player, process
    player.close()
    process.wait(timeout=60)


def test_output_of_a_calculation_does_not_corrupt_the_protocol(
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


def test_a_record_processor_ignores_termination_signals(
    child: tuple[Player, subprocess.Popen[bytes]],
) -> None:
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
        (b"nonsense\n", 1, "not a protocol message"),
        (
            json.dumps({"action": "initialize", "shardId": SHARD, "sequenceNumber": "5"}).encode(),
            1,
            "no state snapshot",
        ),
    ],
)
def test_the_exit_code_and_one_log_line_report_the_outcome(
    launch: Launch, lines: bytes, code: int, words: str | None
) -> None:
    done = subprocess.run(
        launch.command,
        input=lines,
        capture_output=True,
        env=launch.environ,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (code, b"")
    log = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["level"] for line in log].count("error") == (1 if words else 0)
    assert words is None or words in log[-1]["event"]


def test_consecutive_failures_of_a_calculation_stop_the_process_without_a_checkpoint(launch: Launch) -> None:
    """Where `stop_after_failures` asks for it. The daemon's launcher then gives up instead of starting it again."""
    process = subprocess.Popen(
        launch.command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=launch.environ,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    player = Player(process.stdin, process.stdout)
    player.initialize(SHARD)
    player.records([reading(0)])
    with pytest.raises(ConsumerEndedError):
        player.records([reading(at, note="fail") for at in range(1, 9)])
    _, log = process.communicate(timeout=60)
    assert process.returncode == CONFIG_ERROR
    assert player.checkpoints == []
    lines = [json.loads(line) for line in log.splitlines() if line.startswith(b"{")]
    (told,) = [line for line in lines if line.get("level") == "error"]
    assert re.search(r"'reading': 3 records in succession failed at .*:\d+ \(ValueError\)", told["event"])
    assert "app.stop_after_failures" in told["hint"]
    assert told["exit_code"] == 2


@pytest.mark.parametrize("hosted", [False, True])
def test_an_invalid_configuration_is_reported_with_exit_code_two(tmp_path: Path, hosted: bool) -> None:
    """A fork server that cannot load its settings leaves each record processor to report the error."""
    file = tmp_path / "effective.properties"
    file.write_text("app.segment_seconds = 0\napp.nothing = 1\n")
    alone = [sys.executable, "-m", "stream_app.record_processor"]
    given = {**environ(), "STREAM_APP_PROPERTIES": str(file)}
    if hosted:
        with hosting(tmp_path, [sys.executable, "-P", "-m", "stream_app.forkserver.main"]) as host:
            done = run(launcher(alone), dict(host.environ))
            assert host.of("host_gave_up")[0]["code"] == 2
    else:
        done = run(alone, given)
    assert (done.returncode, done.stdout) == (2, b"")
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert len(told) == 4
    assert all(line["hint"] for line in told)


def run(command: list[str], given: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command,
        input=as_json("reading", {"time": START}),
        capture_output=True,
        env=given,
        timeout=60,
        check=False,
    )
