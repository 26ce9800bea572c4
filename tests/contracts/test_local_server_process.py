"""The embedded AWS as a program: how it starts, and that it always ends."""

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
    """Whether all of them come to their end soon."""
    _, alive = psutil.wait_procs(processes, timeout=15)
    return not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_stopping_ends_main_and_worker_and_may_be_repeated() -> None:
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
def test_a_signal_ends_it_cleanly_even_while_a_client_waits(number: signal.Signals, tmp_path: Path) -> None:
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


def test_killing_the_main_process_leaves_no_worker() -> None:
    running = start()
    processes = family(running)
    os.kill(running.pid, signal.SIGKILL)
    assert ended(processes)
    running.stop()


def test_it_ends_when_the_process_that_started_it_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time, psutil; from stream_app.local.server.process import start; a = start();"
        "m = psutil.Process(a.pid); print(m.pid, *[p.pid for p in m.children()], flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        processes = [psutil.Process(int(pid)) for pid in _line(parent).split()]
        assert len(processes) == 2
        parent.kill()
    assert ended(processes)


def test_it_does_not_end_with_the_thread_that_started_it() -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(start).result()
    with running:
        # It looks for its parent at least every second; so many answers span more than one look.
        for _ in range(8):
            assert httpx.get(f"{running.endpoint}/stream-app/health").status_code == 200
            running._process.poll()
            with pytest.raises(subprocess.TimeoutExpired):
                running._process.wait(0.25)


def test_a_port_that_is_taken_is_said_so() -> None:
    with start() as server:
        with pytest.raises(ConfigError, match=f"port {server.port}"):
            start(port=server.port)
        assert httpx.get(f"{server.endpoint}/stream-app/health").status_code == 200


def test_what_keeps_it_from_coming_up_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "moto").mkdir()
    (tmp_path / "moto" / "__init__.py").write_text("raise RuntimeError('broken on purpose')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    log = tmp_path / "aws.log"
    with pytest.raises(FatalError, match="broken on purpose") as failed:
        start(log=log)
    assert str(log) in str(failed.value)


def test_a_server_that_takes_too_long_is_ended() -> None:
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    with pytest.raises(FatalError, match="did not respond within 0 s"):
        start(timeout=0)
    assert {process.pid for process in psutil.Process().children(recursive=True)} <= before


def test_the_program_says_where_it_is(tmp_path: Path) -> None:
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
