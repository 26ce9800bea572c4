"""The launcher of the KCL MultiLangDaemon."""

from __future__ import annotations

import os
import random
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
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
from stream_app.daemon.supervisor import DEFAULT_RESTARTS, Ending, Restarts, Stop, supervise
from stream_app.errors import ConfigError, Problem
from stream_app.settings import ENVIRONMENT, read_properties

T = TypeVar("T")

_MARGIN_SECONDS = 10.0  # for the work of KCL during a stop besides waiting for its child processes


@dataclass(frozen=True, slots=True)
class LaunchOptions:
    """How to run the daemon.

    `environ` is the complete environment of the daemon and its child processes. `overrides` are properties of this
    run; None removes a property. `debug` enables the INFO messages of KCL. `shards` is the number of open shards of
    the stream, None if unknown, for which the heap is sized.
    """

    environ: Mapping[str, str]
    overrides: Mapping[str, str | None] = field(default_factory=dict)
    restarts: Restarts = DEFAULT_RESTARTS
    debug: bool = False
    shards: int | None = None


def run_daemon(
    properties: Path,
    options: LaunchOptions,
    *,
    on_line: OnLine,
    stop: Stop,
    before: Callable[[str], object] = lambda _worker: None,
) -> int:
    """Run the daemon, restarting it after crashes, until `stop` is requested; returns the exit code.

    The exit code is 0 after a requested stop, 1 if restarts are exhausted or a stop had to be forced, and 2 if a
    child process found the configuration invalid. Raises ConfigError, with all problems, before anything is started.

    `properties` is the base file. STREAM_APP_APPLICATION, _STREAM, _REGION and _WORKER_ID of the environment override
    it, and `options.overrides` override both. `on_line` is called with one line at a time, including DEBUG lines (see
    `daemon.log`). Lines of the launcher have the source `launcher` and the events launcher_started, daemon_started
    (with `pid`), daemon_restarting, daemon_gave_up and launcher_ended.

    If the setting `shard_host` is on and the shards run the consumer of this package, they are forked by a fork
    server (see `forkserver_owner`), whose lines have the source `host`.

    The heap is computed by `java_heap` and logged with launcher_started. After a daemon that ran out of memory (the
    event out_of_memory of the source `kcl`) the next one reads fewer records at once.

    `before` is called with the worker id before each start, when no daemon with that id runs on this host any more.
    The calling thread must live until the function returns: Linux ends the daemon with it.
    """
    environ, overrides = options.environ, options.overrides
    base = {"workerId": socket.gethostname(), **read_properties(properties), **from_environment(environ)}
    given = effective(base, overrides)
    path = os.pathsep.join((str(Path(sys.executable).parent), environ.get("PATH", os.defpath)))
    runtime, sizing = _checked(given, path, environ, options.shards)

    lock = threading.Lock()

    def write(line: Line) -> None:
        with lock:
            on_line(line)

    def log(line: Line) -> None:
        write(launcher_line(_now(), line))

    use_forkserver = forkserver_owner.enabled(given, environ)
    executable = forkserver_owner.command(given["executableName"]) if use_forkserver else None
    changes = {**overrides, "executableName": executable} if executable else dict(overrides)
    changes["maxRecords"] = str(sizing.max_records)
    with private_file(render(base, changes)) as file:
        # A plain http endpoint is an emulation of Kinesis, which supports JSON only.
        cbor = not given.get("kinesisEndpoint", "").startswith("http://")
        command = java.command(runtime, file, heap=sizing.heap, cbor=cbor, debug=options.debug)
        inherited = {**LOW_MEMORY_ENVIRONMENT, **_for_children(environ), "PATH": path, ENVIRONMENT: str(file)}
        patience = _patience(given)

        names = {name: given[f"{name}Name"] for name in ("application", "stream")}
        started = {"worker": given["workerId"], "java": str(runtime), **sizing.log_fields()}
        log({"event": "launcher_started", **names, **started})
        with _forkserver(executable is not None, file.parent, inherited, log) as more:
            children = inherited | more

            def run() -> Ending:
                before(given["workerId"])
                ending = DaemonProcess(
                    command, environ=children, on_line=write, stop=stop, now=_now, patience=patience
                ).follow()
                if ending.code == java_heap.OUT_OF_MEMORY:
                    fewer = java_heap.after_out_of_memory(int(changes["maxRecords"] or "1"))
                    changes["maxRecords"] = str(fewer)
                    replace_text(file, render(base, changes))
                    log({"level": "WARN", "source": "kcl", "event": "out_of_memory", "max_records": fewer})
                return ending

            code = supervise(run, options.restarts, stop=stop, log=log, chance=random.random)
    log({"event": "launcher_ended", "code": code})
    return code


@contextmanager
def _forkserver(
    enabled: bool, folder: Path, environ: Mapping[str, str], log: Callable[[Line], None]
) -> Iterator[dict[str, str]]:
    if not enabled:
        yield {}
        return
    with forkserver_owner.run_forkserver(folder, environ, log) as more:
        yield more


def _patience(given: Mapping[str, str]) -> Patience:
    # When KCL exits, it waits for its consumers for the failover time.
    failover = given.get("failoverTimeMillis", "10000")
    leave = (int(failover) if failover.isdecimal() else 10_000) / 1000 + 5.0
    return Patience(stop=int(given["shutdownGraceMillis"]) / 1000 + _MARGIN_SECONDS, leave=leave)


def _for_children(environ: Mapping[str, str]) -> dict[str, str]:
    """Remove variables that are part of the effective properties, which otherwise they would override again."""
    return {key: value for key, value in environ.items() if key not in FROM_ENVIRONMENT}


def _checked(
    given: Mapping[str, str], path: str, environ: Mapping[str, str], shards: int | None
) -> tuple[Path, java_heap.Sizing]:
    """Return the Java runtime and the size of its heap. Raises ConfigError with all problems."""
    found = problems(given, path)
    runtime = _collect(found, lambda: java.find_java(environ))
    memory = java_heap.memory_limit()
    sizing = _collect(found, lambda: java_heap.size(given, environ, shards=shards, memory=memory))
    _collect(found, java.jars)
    if found or runtime is None or sizing is None:
        raise ConfigError(found)
    return runtime, sizing


def _collect(found: list[Problem], action: Callable[[], T]) -> T | None:
    try:
        return action()
    except ConfigError as error:
        found.extend(error.problems)
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
