"""Starting, following and stopping a daemon process, with small Python programs in place of the JVM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stream_app.daemon.process import DaemonProcess, group_alive
from stream_app.daemon.shutdown_policy import Patience
from stream_app.daemon.supervisor import Ending, Stop

Line = dict[str, Any]
USUAL = Patience()

PRELUDE = """
import os, signal, subprocess, sys, time
def say(message, logger="X", level="ERROR", to=sys.stdout):
    to.write(f"2026-11-20T10:00:00.000Z\\t{level}\\tt\\t{logger}\\t{message}\\n"); to.flush()
def answered(action, shard):
    say(f"Received response {{}} from subprocess while waiting for {action} while processing shard {shard}",
        "MultiLangProtocol", "INFO")
def failed(code):
    say("Encountered an error while trying to process records", "MultiLangShardRecordProcessor")
    say(f"Child process exited with value: {code}", "MultiLangShardRecordProcessor", "INFO")
def sleep():
    while True: time.sleep(60)
"""


def run(
    script: str,
    patience: Patience = USUAL,
    on: dict[str, Callable[[Stop], None]] | None = None,
    environ: dict[str, str] | None = None,
) -> tuple[Ending, list[Line]]:
    """Run the script until it ends; `on` maps a log message to a callback."""
    seen: list[Line] = []
    stop = Stop()

    def on_line(line: Line) -> None:
        seen.append(line)
        react = (on or {}).get(line.get("message", ""))
        if react is not None:
            react(stop)

    command = [sys.executable, "-u", "-c", PRELUDE + textwrap.dedent(script)]
    daemon = DaemonProcess(
        command, environ=environ or {}, on_line=on_line, stop=stop, now=lambda: "now", patience=patience
    )
    ending = daemon.follow()
    assert not group_alive(daemon.pid)
    stop.close()
    assert seen[0]["event"] == "daemon_started"
    assert seen[0]["pid"] == daemon.pid
    return ending, seen[1:]


def messages(seen: list[Line]) -> list[str]:
    return [line["message"] for line in seen if "message" in line]


def request_stop(stop: Stop) -> None:
    stop.request()


def test_each_line_of_a_child_is_logged_once_although_it_arrives_on_two_pipes() -> None:
    ending, seen = run(
        """
        for n in range(3000):
            text = f"{n:04d} " + "x" * (n % 97)
            say(f"Received error line from subprocess [{text}] for shard s", "DrainChildSTDERRTask")
            sys.stderr.write(text + "\\n"); sys.stderr.flush()
        """
    )
    assert [int(line["message"][:4]) for line in seen] == list(range(3000))
    assert {line["source"] for line in seen} == {"app"}
    assert ending == Ending(0)


def test_the_daemon_has_its_own_environment_and_session() -> None:
    _, seen = run(
        "say(f\"{os.getsid(0) == os.getpid()} {os.environ.get('A')} {len(os.environ) < 4}\")",
        environ={"A": "b"},
    )
    assert messages(seen) == ["True b True"]


def test_a_stop_request_signals_the_daemon_but_not_its_children() -> None:
    ending, seen = run(
        """
        child = subprocess.Popen(
            [sys.executable, "-c",
             "import signal, sys\\n"
             "signal.signal(signal.SIGTERM, lambda *a: sys.exit(9))\\n"
             "print('up', flush=True); sys.stdin.read()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child.stdout.readline()
        def leave(*_):
            child.stdin.close()
            say(f"child left with {child.wait()}")
            sys.exit(143)
        signal.signal(signal.SIGTERM, leave)
        say("ready")
        sleep()
        """,
        on={"ready": request_stop},
    )
    assert ending == Ending(143, stopped=True)
    assert messages(seen)[-1] == "child left with 0"


def test_a_second_stop_request_kills_the_daemon_and_its_children() -> None:
    ending, _ = run(
        """
        subprocess.Popen(["sleep", "600"])
        signal.signal(signal.SIGTERM, lambda *_: say("no"))
        say("ready")
        sleep()
        """,
        on={"ready": request_stop, "no": request_stop},
        environ={"PATH": os.defpath},
    )
    assert ending == Ending(-signal.SIGKILL, stopped=True, forced=True)


def test_a_daemon_that_ignores_sigterm_is_killed_after_the_stop_timeout() -> None:
    script = 'signal.signal(signal.SIGTERM, signal.SIG_IGN); say("ready"); sleep()'
    ending, _ = run(script, Patience(stop=0.3), on={"ready": request_stop})
    assert ending == Ending(-signal.SIGKILL, stopped=True, forced=True)


def test_after_a_child_failed_the_daemon_is_killed_once_the_other_shards_have_ended() -> None:
    ending, seen = run(
        """
        for shard in ("a", "b", "c"): answered("initialize", shard)
        say("Failed to get status message for processRecords action for shard shardId-1", "MultiLangProtocol")
        answered("leaseLost", "a")
        failed(7)
        time.sleep(0.3)
        say("still here")
        answered("shutdownRequested", "b")
        answered("shardEnded", "c")
        sleep()
        """
    )
    assert ending == Ending(-signal.SIGKILL, stopped=False, child=7)
    assert "still here" in messages(seen)


def test_a_daemon_that_initializes_shards_again_during_shutdown_is_killed() -> None:
    ending, _ = run(
        """
        def term(*_):
            answered("shutdownRequested", "a")
            answered("leaseLost", "a")
            answered("initialize", "a")
        signal.signal(signal.SIGTERM, term)
        answered("initialize", "a")
        say("ready")
        sleep()
        """,
        Patience(leave=0.1),
        on={"ready": request_stop},
    )
    assert ending == Ending(-signal.SIGKILL, stopped=True)


def test_a_daemon_with_a_failed_child_is_killed_after_the_crash_timeout() -> None:
    ending, _ = run('answered("initialize", "a"); failed(2); sleep()', Patience(crash=0.3))
    assert ending == Ending(-signal.SIGKILL, stopped=False, child=2)


def test_children_are_killed_soon_after_their_daemon_ended() -> None:
    ending, _ = run(
        'subprocess.Popen(["sleep", "600"]); sys.exit(1)',
        Patience(children=0.3),
        environ={"PATH": os.defpath},
    )
    assert ending == Ending(1)


def test_an_error_in_the_callback_kills_the_daemon_and_propagates() -> None:
    pids: list[int] = []

    def on_line(line: Line) -> None:
        pids.append(line["pid"])
        raise ArithmeticError

    command = [sys.executable, "-c", PRELUDE + "sleep()"]
    daemon = DaemonProcess(
        command, environ={}, on_line=on_line, stop=Stop(), now=lambda: "now", patience=USUAL
    )
    with pytest.raises(ArithmeticError):
        daemon.follow()
    assert pids == [daemon.pid]
    assert not group_alive(daemon.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_the_daemon_ends_if_its_launcher_is_killed(tmp_path: Path) -> None:
    launcher = f"""
    import sys
    from stream_app.daemon.shutdown_policy import Patience
    from stream_app.daemon.process import DaemonProcess
    from stream_app.daemon.supervisor import Stop
    def on_line(line):
        if line.get("message") == "ready":
            print(daemon.pid, flush=True)
    daemon = DaemonProcess([sys.executable, "-u", "-c", {PRELUDE!r} + "say('ready'); sleep()"],
                           environ={{}}, on_line=on_line, stop=Stop(), now=lambda: "now", patience=Patience())
    daemon.follow()
    """
    command = [sys.executable, "-c", textwrap.dedent(launcher)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        daemon = int(process.stdout.readline())
        assert group_alive(daemon)
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while group_alive(daemon) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not group_alive(daemon)
