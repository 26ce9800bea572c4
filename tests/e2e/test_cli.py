"""The commands as a person types them: embedded AWS, daemon, devices, audit; and Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import psutil
import pytest

pytestmark = pytest.mark.timeout(180)
COMMAND = [sys.executable, "-m", "stream_app.cli"]


def start(folder: Path, *arguments: str, environ: Mapping[str, str] = os.environ) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test runner started in the background ignores SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def run(folder: Path, environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    process = start(folder, *arguments, environ=environ)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def lines_until(stream: IO[str], wanted: str) -> list[str]:
    lines = []
    for line in stream:
        lines.append(line)
        if wanted in line:
            return lines
    raise AssertionError(f"{wanted!r} never came: {lines}")


@pytest.fixture
def environ(tmp_path: Path) -> Iterator[dict[str, str]]:
    up = start(tmp_path, "local", "up", "--shards", "2")
    assert up.stdout is not None
    told = "".join(lines_until(up.stdout, "Press Ctrl-C to stop the embedded AWS"))
    yield {**os.environ, **dict(re.findall(r"export (\w+)=(\S+)", told))}
    up.send_signal(signal.SIGINT)
    up.communicate(timeout=30)
    assert up.returncode == 0


def test_local_up_daemon_play_and_audit(environ: dict[str, str], tmp_path: Path) -> None:
    properties = str(tmp_path / ".stream-app" / "local.properties")
    daemon = start(tmp_path, "daemon", "--properties", properties, environ=environ)
    try:
        sent = run(tmp_path, environ, "devices", "play", "--first", "200", "--faults", "--json")
        assert sent.returncode == 0, sent.stderr
        deadline = time.monotonic() + 90
        while True:
            found = run(tmp_path, environ, "audit", "--properties", properties, "--json")
            total = json.loads(found.stdout)["total"]
            if not total["pending"] and not total["missing"]:
                break
            assert time.monotonic() < deadline, total
            time.sleep(1)
        assert found.returncode == 0
        assert total["accepted"] == json.loads(sent.stdout)["sent"]
        assert total["stored"] == 200
        again = run(tmp_path, environ, "daemon", "--properties", properties, "--from", "2026-01-01T00:00:00Z")
        assert again.returncode == 2
        assert "leases" in again.stderr
    finally:
        daemon.send_signal(signal.SIGTERM)
        _, log = daemon.communicate(timeout=60)
    assert daemon.returncode == 0
    lines = [json.loads(line) for line in log.splitlines()]
    assert {line["shard"] for line in lines if line["event"] == "initialized"} == {
        "shardId-000000000000",
        "shardId-000000000001",
    }


def test_ctrl_c_stops_a_run_gracefully(tmp_path: Path) -> None:
    process = start(tmp_path, "run", "--json")
    assert process.stderr is not None
    lines_until(process.stderr, "playing")
    started = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "Traceback" not in err
    assert json.loads(out)["interrupted"]
    _, alive = psutil.wait_procs(started, timeout=5)
    assert not alive


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "no-such-data"], "no-such-data"),
        (["run", "--rehearse", "explode@3"], "explode"),
        (["run", "--speed", "fast"], "fast"),
        (["run", "--via", "pigeon"], "pigeon"),
        (["devices", "play", "--event", "nothing"], "nothing"),
        (["audit", "--properties", __file__, "--pending-for", "soon"], "soon"),
    ],
)
def test_wrong_usage_is_reported_with_a_hint(arguments: list[str], told: str, tmp_path: Path) -> None:
    dummy = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    process = start(tmp_path, *arguments, environ={**os.environ, **dummy})
    _, err = process.communicate(timeout=60)

    assert process.returncode == 2
    assert told in err
    assert "hint:" in err
    assert "Traceback" not in err
