"""Starts and owns KCL's MultiLangDaemon: `run_daemon` is the launcher's whole work."""

from __future__ import annotations

import os
import random
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from stream_app.consumer.memory_release import LOW_MEMORY_ENVIRONMENT
from stream_app.daemon import forkserver_owner, java, java_heap
from stream_app.daemon.log import Line, OnLine, launcher_line
from stream_app.daemon.process import DaemonProcess
from stream_app.daemon.properties import (
    FROM_ENVIRONMENT,
    effective,
    from_environment,
    private_file,
    problems,
    render,
    replace_text,
)
from stream_app.daemon.shutdown_policy import Patience
from stream_app.daemon.supervisor import USUAL, Ending, Restarts, Stop, supervise
from stream_app.errors import ConfigError, Problem
from stream_app.settings import ENVIRONMENT, read_properties

T = TypeVar("T")

_MARGIN_SECONDS = 10.0  # for what KCL does beside waiting for the children when it stops


def run_daemon(
    properties: Path,
    *,
    environ: Mapping[str, str],
    on_line: OnLine,
    stop: Stop,
    overrides: Mapping[str, str | None] = {},
    restarts: Restarts = USUAL,
    debug: bool = False,
    before: Callable[[str], object] = lambda _worker: None,
    shards: int | None = None,
) -> int:
    """Run the daemon, and start it again when it crashes, until `stop` is asked for; the exit code.

    0 after a requested stop, 1 when restarts are spent or a stop had to be forced, 2 when a child found the
    configuration wrong. Raises ConfigError before anything is started, with every problem at once.

    `properties` is the base file; the environment's STREAM_APP_APPLICATION, _STREAM, _REGION and _WORKER_ID go
    over it, and over those `overrides`, what differs in this run (None takes a property away). `environ` is the
    daemon's and its children's whole environment. `on_line` is called with one line at a time, the DEBUG ones
    too; see `daemon_log`. Lines of the launcher itself have the source `launcher` and the events
    launcher_started, daemon_started (with `pid`), daemon_restarting, daemon_gave_up, launcher_ended.
    `debug` lets KCL's own INFO lines come.

    Where the setting `shard_host` is on and the program of the shards is ours, they are forks of one host (see
    `host_keeper`), whose lines have the source `host`.

    The heap is sized for `shards`, the open shards of the stream where they are known (see `java_heap`), and told
    with launcher_started. After one that ran out of memory (the event out_of_memory of the source `kcl`) the next
    daemon reads fewer records at once.

    `before` is called with the worker's id before each start, when no daemon of that id runs here any more.
    Call it in a thread that lives until it returns: Linux ends the daemon with that thread.
    """
    base = {"workerId": socket.gethostname(), **read_properties(properties), **from_environment(environ)}
    given = effective(base, overrides)
    path = os.pathsep.join((str(Path(sys.executable).parent), environ.get("PATH", os.defpath)))
    runtime, sizing = _checked(given, path, environ, shards)

    speaking = threading.Lock()

    def say(line: Line) -> None:
        with speaking:
            on_line(line)

    def tell(line: Line) -> None:
        say(launcher_line(_now(), line))

    hosted = (
        forkserver_owner.command(given["executableName"]) if forkserver_owner.wanted(given, environ) else None
    )
    changes = {**overrides, "executableName": hosted} if hosted else dict(overrides)
    changes["maxRecords"] = str(sizing.max_records)
    with private_file(render(base, changes)) as file:
        # An emulation of Kinesis speaks JSON alone, and is what a plain http endpoint means.
        cbor = not given.get("kinesisEndpoint", "").startswith("http://")
        command = java.command(runtime, file, heap=sizing.heap, cbor=cbor, debug=debug)
        inherited = {**LOW_MEMORY_ENVIRONMENT, **_for_children(environ), "PATH": path, ENVIRONMENT: str(file)}
        patience = _patience(given)

        names = {name: given[f"{name}Name"] for name in ("application", "stream")}
        started = {"worker": given["workerId"], "java": str(runtime), **sizing.told()}
        tell({"event": "launcher_started", **names, **started})
        with _host(hosted is not None, file.parent, inherited, tell) as more:
            children = inherited | more

            def run() -> Ending:
                before(given["workerId"])
                ending = DaemonProcess(
                    command, environ=children, on_line=say, stop=stop, now=_now, patience=patience
                ).follow()
                if ending.code == java_heap.OUT_OF_MEMORY:
                    fewer = java_heap.after_out_of_memory(int(changes["maxRecords"] or "1"))
                    changes["maxRecords"] = str(fewer)
                    replace_text(file, render(base, changes))
                    tell({"level": "WARN", "source": "kcl", "event": "out_of_memory", "max_records": fewer})
                return ending

            code = supervise(run, restarts, stop=stop, tell=tell, chance=random.random)
    tell({"event": "launcher_ended", "code": code})
    return code


@contextmanager
def _host(
    on: bool, folder: Path, environ: Mapping[str, str], tell: Callable[[Line], None]
) -> Iterator[dict[str, str]]:
    if not on:
        yield {}
        return
    with forkserver_owner.keep_host(folder, environ, tell) as more:
        yield more


def _patience(given: Mapping[str, str]) -> Patience:
    # When it leaves, KCL waits for its consumers as long as for a failover.
    failover = given.get("failoverTimeMillis", "10000")
    leave = (int(failover) if failover.isdecimal() else 10_000) / 1000 + 5.0
    return Patience(stop=int(given["shutdownGraceMillis"]) / 1000 + _MARGIN_SECONDS, leave=leave)


def _for_children(environ: Mapping[str, str]) -> dict[str, str]:
    """Without what the effective file says already: an override would otherwise lose to it in the children."""
    return {key: value for key, value in environ.items() if key not in FROM_ENVIRONMENT}


def _checked(
    given: Mapping[str, str], path: str, environ: Mapping[str, str], shards: int | None
) -> tuple[Path, java_heap.Sizing]:
    """The Java runtime and the size of its heap. Raises ConfigError with every problem at once."""
    found = problems(given, path)
    runtime = _collect(found, lambda: java.find_java(environ))
    memory = java_heap.memory_limit()
    sizing = _collect(found, lambda: java_heap.size(given, environ, shards=shards, memory=memory))
    _collect(found, java.jars)
    if found or runtime is None or sizing is None:
        raise ConfigError(found)
    return runtime, sizing


def _collect(found: list[Problem], ask: Callable[[], T]) -> T | None:
    try:
        return ask()
    except ConfigError as error:
        found.extend(error.problems)
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
