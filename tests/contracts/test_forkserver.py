"""Faults of the fork server, its launchers and its record processors; each record processor is isolated."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from stream_app.daemon.forkserver_owner import command, enabled
from stream_app.forkserver import client
from stream_app.forkserver.server import CANNOT_FORK
from stream_app.testing import ConsumerEndedError, Player, spawn
from tests.contracts.forkservers import ALONE, HOST, PATIENCE, Hosted, gone, hosting, launcher
from tests.support import SHARD
from tests.unit.test_shard import reading

Shard = tuple[Player, subprocess.Popen[bytes]]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    with hosting(tmp_path_factory.mktemp("host")) as hosted:
        yield hosted


def begin(hosted: Hosted) -> tuple[Player, subprocess.Popen[bytes], psutil.Process]:
    """Start a record processor; return its player, launcher and forked process."""
    found: list[Shard] = []

    def start() -> None:
        found.append(hosted.shard())
        found[0][0].initialize(SHARD)

    worker = hosted.worker(start)
    return *found[0], worker


def finish(player: Player, launched: subprocess.Popen[bytes], at: int = 0) -> int:
    """Process the rest of the shard and return the exit code."""
    player.records([reading(at), reading(at + 1)])
    player.shard_ended()
    assert player.checkpoints[-1] == (None, None)
    player.close()
    return launched.wait(PATIENCE)


@pytest.mark.parametrize(
    ("note", "code"), [("abort", 128 + signal.SIGABRT), ("exit", 7)], ids=["abort", "exit"]
)
def test_a_crash_of_one_record_processor_does_not_affect_others(host: Hosted, note: str, code: int) -> None:
    (one, first, worker), (other, second, _) = begin(host), begin(host)
    with pytest.raises(ConsumerEndedError):
        one.records([reading(0, note=note)])
    assert first.wait(PATIENCE) == code
    assert gone(worker)
    assert finish(other, second) == 0
    assert finish(*begin(host)[:2]) == 0


def test_a_killed_record_processor_does_not_affect_others(host: Hosted) -> None:
    (one, first, worker), (other, second, _) = begin(host), begin(host)
    worker.kill()
    assert first.wait(PATIENCE) == 128 + signal.SIGKILL
    with pytest.raises(ConsumerEndedError):
        one.tick()
    assert finish(*begin(host)[:2]) == 0
    told = [line for line in host.of("shard process killed") if line["pid"] == worker.pid]
    assert [line["signal"] for line in told] == [signal.SIGKILL]
    assert finish(other, second) == 0


@pytest.mark.parametrize("stuck", ["stopped", "busy"])
def test_a_hung_record_processor_blocks_no_other_and_ends_with_its_launcher(host: Hosted, stuck: str) -> None:
    player, launched, worker = begin(host)
    player.records([reading(0, note="start")])
    (started,) = worker.children()
    if stuck == "stopped":
        worker.suspend()
    else:
        threading.Thread(target=hang, args=(player,), daemon=True).start()
        while worker.cpu_times().user < 0.2:
            time.sleep(0.01)
    assert finish(*begin(host)[:2]) == 0
    launched.kill()
    assert gone(worker)
    assert gone(started), "child processes end too"
    player.close()


def hang(player: Player) -> None:
    with suppress(ConsumerEndedError):
        player.records([reading(1, note="hang")])


def test_record_processors_ignore_termination_signals(host: Hosted) -> None:
    player, launched, worker = begin(host)
    for number in (signal.SIGINT, signal.SIGTERM):
        worker.send_signal(number)
        launched.send_signal(number)
    assert finish(player, launched) == 0


def test_a_launcher_uses_little_memory_and_holds_no_pipe_of_the_consumer(host: Hosted) -> None:
    player, launched, worker = begin(host)
    process = psutil.Process(launched.pid)
    assert process.memory_full_info().pss < 1_000_000
    pipes = {Path(f"/proc/{worker.pid}/fd/{fd}").readlink() for fd in (0, 1)}
    for pid in (launched.pid, host.process.pid):
        assert not pipes & {path.readlink() for path in Path(f"/proc/{pid}/fd").iterdir()}
    assert finish(player, launched) == 0


def test_record_processors_survive_a_restart_of_the_fork_server(tmp_path: Path) -> None:
    with hosting(tmp_path) as host:
        player, launched, _ = begin(host)
        first = host.process
        first.kill()
        waiting, second = host.shard()  # starts while no fork server is running
        waiting.initialize(SHARD)
        assert host.wait("host_started", 2)["pid"] != first.pid
        player.records([reading(0)])
        assert finish(player, launched, 1) == 0, "the exit code does not need the original fork server"
        assert finish(waiting, second) == 0


@pytest.mark.parametrize("stuck", [False, True])
def test_a_record_processor_ends_with_its_launcher_without_a_fork_server(tmp_path: Path, stuck: bool) -> None:
    with hosting(tmp_path) as host:
        player, launched, worker = begin(host)
        host.process.kill()
        host.wait("host_restarting")
        if stuck:
            worker.suspend()
        launched.kill()
        assert gone(worker)
        player.close()


def test_the_death_of_a_record_processor_without_a_fork_server_is_a_failure(tmp_path: Path) -> None:
    with hosting(tmp_path) as host:
        player, launched, worker = begin(host)
        host.process.kill()
        host.wait("host_restarting")
        worker.kill()
        assert launched.wait(PATIENCE) == 1
        player.close()


def test_all_processes_end_with_the_owner_of_the_fork_server(tmp_path: Path) -> None:
    with hosting(tmp_path) as host:
        player, launched, worker = begin(host)
        process = host.process
    assert not process.is_running()
    assert gone(worker)
    assert launched.wait(PATIENCE) == 128 + signal.SIGKILL
    player.close()


@pytest.mark.parametrize(
    "program",
    [
        "import threading, time; threading.Thread(target=time.sleep, args=(99,), daemon=True).start()",
        "import socket; held = socket.socketpair()",
    ],
    ids=["a thread", "a connection"],
)
def test_a_fork_server_that_cannot_fork_safely_is_replaced_by_separate_processes(
    tmp_path: Path, program: str
) -> None:
    with hosting(tmp_path, [*HOST[:-1], f"{program}\n{HOST[-1]}"]) as host:
        player, launched = host.shard(ALONE)
        player.initialize(SHARD)
        assert host.wait("host_gave_up")["code"] == CANNOT_FORK
        assert finish(player, launched) == 0


def test_a_fork_server_that_keeps_crashing_is_abandoned(tmp_path: Path) -> None:
    with hosting(tmp_path, [sys.executable, "-c", "raise SystemExit(9)"]) as host:
        player, launched = host.shard(ALONE)
        player.initialize(SHARD)
        assert finish(player, launched) == 0
        host.wait("host_gave_up")
        assert len(host.of("host_started")) == 4


def test_a_launcher_does_not_wait_forever_for_a_hung_fork_server(host: Hosted) -> None:
    hurried = f"import sys; sys.path.insert(0, {str(Path(client.__file__).parent)!r}); "
    hurried += "import client as it; it._PATIENCE = 0.2; it.main(sys.argv[1:])"
    process = host.process
    process.suspend()
    try:
        player, launched = spawn([sys.executable, "-I", "-S", "-c", hurried, *ALONE], host.environ)
        player.initialize(SHARD)
        assert finish(player, launched) == 0
    finally:
        process.resume()
    assert finish(*begin(host)[:2]) == 0, "abandoned connections do not affect later launchers"


@pytest.mark.parametrize(
    "change", [{"STREAM_APP_PROPERTIES": "/elsewhere/x.properties"}, {"STREAM_APP_HOST": ""}]
)
def test_a_fork_server_with_other_settings_is_not_used(host: Hosted, change: dict[str, str]) -> None:
    done = subprocess.run(
        launcher(["/bin/echo", "alone"]), env={**host.environ, **change}, stdout=-1, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"alone\n")


@pytest.mark.parametrize(
    "own", ["my-consumer", "stream-app-consumer --x", "", "python -m stream_app.record_processor"]
)
def test_only_the_shipped_record_processor_uses_the_fork_server(own: str) -> None:
    assert command(own) is None


def test_the_command_for_kcl_contains_no_argument_with_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    words = (command("/opt/bin/stream-app-consumer") or "").split()
    assert words[0] == sys.executable
    assert words[-1] == "/opt/bin/stream-app-consumer"
    assert Path(words[3]).is_file()
    for odd in ("/a folder/python", "/größe/python", "C:\\python"):
        monkeypatch.setattr(sys, "executable", odd)
        assert command("stream-app-consumer") is None


def test_the_fork_server_is_enabled_by_default() -> None:
    assert enabled({}, {})
    assert not enabled({"app.shard_host": "false"}, {})
    assert enabled({"app.shard_host": "false"}, {"STREAM_APP_SHARD_HOST": "true"})
    assert not enabled({}, {"STREAM_APP_SHARD_HOST": "false"})
