"""Every pipe and function of the template, running in one process until it is told to stop."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import urllib3

from stream_app.errors import FatalError
from stream_app.local.deployers.dependencies import ClientFactory
from stream_app.local.deployers.deploy import placed
from stream_app.local.functions import Handler, functions, variables
from stream_app.local.pipes.queue_poller import Loop
from stream_app.local.pipes.runner import PipeDependencies, Worker, pipes
from stream_app.local.pipes.targets import Post
from stream_app.telemetry import log

Report = Callable[[Mapping[str, Any]], None]

_INTERVAL_SECONDS = 1.0
_JOIN_SECONDS = 10.0
# An API destination has five seconds to answer.
_HTTP = urllib3.Timeout(total=5.0)


def run_all(
    clients: ClientFactory,
    templates: Sequence[Path],
    application: str,
    stop: threading.Event,
    report: Report,
    *,
    parameters: Mapping[str, Any] | None = None,
    handlers: Mapping[str, Handler] | None = None,
    environ: MutableMapping[str, str] | None = None,
    interval: float = _INTERVAL_SECONDS,
) -> None:
    """Run them until `stop` is set, then let each finish what it has in hand.

    `report` is given the counters every `interval` seconds and once at the end; `environ` is given the variables
    that the functions ask for. Raises ConfigError before anything runs, and FatalError when one of them failed for
    good; then all are stopped.
    """
    found = placed(templates, clients, application=application, parameters=parameters)
    if environ is not None:
        environ.update(variables(found))
    dependencies = PipeDependencies(clients, poster(), time.time, random.Random())
    workers = [*pipes(found, dependencies), *functions(found, clients, handlers)]
    failed: list[tuple[str, BaseException]] = []
    halt = threading.Event()
    threads = [_start(worker, loop, halt, failed) for worker in workers for loop in worker.loops]
    log.get().info("runners are running", workers=[f"{w.kind} {w.name}" for w in workers])
    try:
        while not failed and not stop.wait(interval):
            report(counts(workers))
    finally:
        halt.set()
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    report(counts(workers))
    if failed:
        name, error = failed[0]
        raise FatalError(f"{name} failed: {error}") from error


def counts(workers: Sequence[Worker]) -> dict[str, dict[str, dict[str, int]]]:
    """What each has done so far: {"pipe": {name: counters}, "function": {name: counters}}."""
    found: dict[str, dict[str, dict[str, int]]] = {"pipe": {}, "function": {}}
    for worker in workers:
        found[worker.kind][worker.name] = worker.counters.snapshot()
    return found


def poster() -> Post:
    """Sends HTTP requests over connections that are kept; a redirect is not followed, nothing is tried twice."""
    pool = urllib3.PoolManager(maxsize=8, timeout=_HTTP, retries=False)

    def post(method: str, url: str, headers: Mapping[str, str], body: bytes) -> int:
        return pool.request(method, url, body=body, headers=dict(headers), redirect=False).status

    return post


def serve(
    clients: ClientFactory,
    templates: Sequence[Path],
    application: str,
    out: TextIO,
    *,
    level: str = "INFO",
    parameters: Mapping[str, Any] | None = None,
    handlers: Mapping[str, Handler] | None = None,
) -> None:
    """The process of the runners: until SIGTERM or SIGINT, or its parent's end; a line of JSON a second to `out`.

    To be called in the main thread. Raises what `run_all` raises, and OSError when nobody reads `out` any more.
    """
    parent = os.getppid()
    log.configure(level)  # to stderr: `out` may be stdout
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def report(counters: Mapping[str, Any]) -> None:
        out.write(json.dumps({"ts": round(time.time(), 3), **counters}) + "\n")
        out.flush()
        # Asked once a second: Linux's own signal for it comes when the starting *thread* ends, too.
        if os.getppid() != parent:
            stop.set()

    run_all(
        clients,
        templates,
        application,
        stop,
        report,
        parameters=parameters,
        handlers=handlers,
        environ=os.environ,
    )


def _start(
    worker: Worker, loop: Loop, stop: threading.Event, failed: list[tuple[str, BaseException]]
) -> threading.Thread:
    def guarded() -> None:
        try:
            loop(stop)
        except BaseException as error:
            # Raised again by run_all, in the thread that waits.
            failed.append((f"{worker.kind} {worker.name}", error))
            log.get().error("runner failed", kind=worker.kind, name=worker.name, error=type(error).__name__)

    thread = threading.Thread(target=guarded, name=f"{worker.kind} {worker.name}", daemon=True)
    thread.start()
    return thread
