"""The server process: startup, and shutdown in every case."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import httpx
import psutil
import pytest

from stream_app.errors import ConfigError, FatalError
from stream_app.local.server.process import start
from tests.contracts.local_server import family


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def ended(processes: list[psutil.Process]) -> bool:
    """Return whether all processes end within a few seconds."""
    _, alive = psutil.wait_procs(processes, timeout=15)
    return not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_stop_ends_both_processes_and_is_idempotent() -> None:
    running = start()
    processes = family(running)
    assert len(processes) == 2
    running.stop()
    running.stop()
    assert not running.running()
    assert ended(processes)
    with pytest.raises(FatalError):
        running.clear_faults()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_server_during_a_long_poll(number: signal.Signals, tmp_path: Path) -> None:
    running = start(log=tmp_path / "aws.log")
    processes = family(running)
    session = boto3.session.Session("testing", "testing", region_name="us-east-1")
    sqs = session.client("sqs", endpoint_url=running.endpoint)
    url = sqs.create_queue(QueueName="queue")["QueueUrl"]
    with httpx.Client() as http, ThreadPoolExecutor(1) as pool:
        poll = pool.submit(sqs.receive_message, QueueUrl=url, WaitTimeSeconds=20)
        http.get(f"{running.endpoint}/stream-app/health")
        os.kill(running.pid, number)
        assert running._process.wait(15) == 0
        assert ended(processes)
        poll.exception()
    assert [json.loads(line)["pid"] for line in (tmp_path / "aws.log").read_text().splitlines()] == [
        running.pid
    ]


def test_killing_the_main_process_ends_the_worker() -> None:
    running = start()
    processes = family(running)
    os.kill(running.pid, signal.SIGKILL)
    assert ended(processes)
    running.stop()


def test_the_server_ends_with_its_parent_process(tmp_path: Path) -> None:
    program = (
        "import sys, time, psutil; from stream_app.local.server.process import start; a = start();"
        "m = psutil.Process(a.pid); print(m.pid, *[p.pid for p in m.children()], flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        processes = [psutil.Process(int(pid)) for pid in _line(parent).split()]
        assert len(processes) == 2
        parent.kill()
    assert ended(processes)


def test_the_server_outlives_the_thread_that_started_it() -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(start).result()
    with running:
        # The server checks for its parent every second; these responses span more than one check.
        for _ in range(8):
            assert httpx.get(f"{running.endpoint}/stream-app/health").status_code == 200
            running._process.poll()
            with pytest.raises(subprocess.TimeoutExpired):
                running._process.wait(0.25)


def test_a_port_in_use_is_reported() -> None:
    with start() as server:
        with pytest.raises(ConfigError, match=f"port {server.port}"):
            start(port=server.port)
        assert httpx.get(f"{server.endpoint}/stream-app/health").status_code == 200


def test_a_startup_error_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "moto").mkdir()
    (tmp_path / "moto" / "__init__.py").write_text("raise RuntimeError('broken on purpose')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    log = tmp_path / "aws.log"
    with pytest.raises(FatalError, match="broken on purpose") as failed:
        start(log=log)
    assert str(log) in str(failed.value)


def test_a_server_that_starts_too_slowly_is_killed() -> None:
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    with pytest.raises(FatalError, match="did not respond within 0 s"):
        start(timeout=0)
    assert {process.pid for process in psutil.Process().children(recursive=True)} <= before


def test_the_server_publishes_its_endpoint(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    command = [sys.executable, "-m", "stream_app.local.server", "--ready-file", str(ready)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=root
    ) as process:
        said = json.loads(_line(process))
        assert said == json.loads(ready.read_text())
        assert said["pid"] == process.pid
        assert httpx.get(f"{said['endpoint']}/stream-app/health").status_code == 200
        process.terminate()
        assert process.wait(15) == 0
