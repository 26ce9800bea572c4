"""Runs every pipe and function of the template in one process until it is stopped."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import urllib3

from stream_app.aws.clients import ClientFactory
from stream_app.errors import FatalError
from stream_app.local.deployers.deploy import resolve_templates
from stream_app.local.deployers.intrinsics import Properties
from stream_app.local.functions import Handler, functions, variables
from stream_app.local.pipes.queue_reader import Loop
from stream_app.local.pipes.runner import PipeDependencies, Worker, pipes
from stream_app.local.pipes.targets import SendRequest
from stream_app.telemetry import log

# Counters by kind ("pipe", "function"), name and counter.
Counts = dict[str, dict[str, dict[str, int]]]
Report = Callable[[Counts], None]

_INTERVAL_SECONDS = 1.0
_JOIN_SECONDS = 10.0
# EventBridge limits a request to an API destination to five seconds.
_HTTP = urllib3.Timeout(total=5.0)


@dataclass(frozen=True, slots=True)
class RunnerOptions:
    """Options of `run_all`.

    `parameters` are template parameters. `handlers` replace the imported Lambda handlers by path. `environ` receives
    the environment variables of the functions. `interval` is the time between reports in seconds.
    """

    parameters: Properties | None = None
    handlers: Mapping[str, Handler] | None = None
    environ: MutableMapping[str, str] | None = None
    interval: float = _INTERVAL_SECONDS


def run_all(
    clients: ClientFactory,
    templates: Sequence[Path],
    application: str,
    stop: threading.Event,
    report: Report,
    options: RunnerOptions = RunnerOptions(),
) -> None:
    """Run all pipes and functions until `stop` is set, then let each finish its current batch.

    `report` is called with the counters every `options.interval` seconds and once at the end. Raises ConfigError
    before anything runs, and FatalError if a pipe or function fails permanently, after stopping all others.
    """
    found = resolve_templates(templates, clients, application=application, parameters=options.parameters)
    if options.environ is not None:
        options.environ.update(variables(found))
    dependencies = PipeDependencies(clients, http_sender(), time.time, random.Random())
    workers = [*pipes(found, dependencies), *functions(found, clients, options.handlers)]
    failed: list[tuple[str, BaseException]] = []
    halt = threading.Event()
    threads = [_start(worker, loop, halt, failed) for worker in workers for loop in worker.loops]
    log.get().info("runners are running", workers=[f"{w.kind} {w.name}" for w in workers])
    try:
        while not failed and not stop.wait(options.interval):
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


def counts(workers: Sequence[Worker]) -> Counts:
    """Return the current counters: {"pipe": {name: counters}, "function": {name: counters}}."""
    found: Counts = {"pipe": {}, "function": {}}
    for worker in workers:
        found[worker.kind][worker.name] = worker.counters.snapshot()
    return found


def http_sender() -> SendRequest:
    """Return a function that sends HTTP requests over pooled connections, without redirects or retries."""
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
    parameters: Properties | None = None,
    handlers: Mapping[str, Handler] | None = None,
) -> None:
    """Run as a process until SIGTERM, SIGINT or the end of its parent. Writes a JSON line per second to `out`.

    Must be called in the main thread. Raises the exceptions of `run_all`, and OSError if `out` has been closed.
    """
    parent = os.getppid()
    log.configure(level)  # to stderr: `out` may be stdout
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def report(counters: Counts) -> None:
        out.write(json.dumps({"ts": round(time.time(), 3), **counters}) + "\n")
        out.flush()
        # Polled, because Linux sends the parent-death signal already when the *thread* that started us ends.
        if os.getppid() != parent:
            stop.set()

    run_all(
        clients,
        templates,
        application,
        stop,
        report,
        RunnerOptions(parameters, handlers, os.environ),
    )


def _start(
    worker: Worker, loop: Loop, stop: threading.Event, failed: list[tuple[str, BaseException]]
) -> threading.Thread:
    def guarded() -> None:
        try:
            loop(stop)
        except BaseException as error:
            # Raised again by run_all in the waiting thread.
            failed.append((f"{worker.kind} {worker.name}", error))
            log.get().error("runner failed", kind=worker.kind, name=worker.name, error=type(error).__name__)

    thread = threading.Thread(target=guarded, name=f"{worker.kind} {worker.name}", daemon=True)
    thread.start()
    return thread
