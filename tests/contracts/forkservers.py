"""Record processors as real processes, started alone or by a fork server, with in-memory dependencies."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from stream_app.consumer.memory_release import LOW_MEMORY_ENVIRONMENT
from stream_app.daemon.forkserver_owner import run_forkserver
from stream_app.daemon.supervisor import Restarts
from stream_app.forkserver import client
from stream_app.testing import Player, spawn

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0

# The real entry points with in-memory dependencies. The event writes to stdout through every API, or does what the
# note of a record says.
_WORLD = """
import os, subprocess, sys
from dataclasses import replace
from stream_app import app
from stream_app import record_processor
from stream_app.consumer.shard import ShardConsumer
from stream_app.pipeline.registry import Registry
from tests import samples, support

def calculate(batch):
    print("a user's print")
    print('{"action":"status","responseFor":"processRecords"}')
    sys.stdout.write("without an end")
    sys.stdout.flush()
    os.write(1, b"from C, without an end")
    subprocess.run(["echo", "from a child"], check=True)
    for note in batch["note"].tolist():
        if note == "abort":
            os.abort()
        if note == "hang":
            while True:
                pass
        if note == "exit":
            os._exit(7)
        if note == "fail":
            raise ValueError("a line of its own")
        if note == "start":
            subprocess.Popen(["sleep", "1000"])
    return {"doubled": 2 * batch["value"]}

class NoClients:
    def disconnect(self):
        pass

noisy = replace(samples.READING, calculate=calculate, verify=None)
registry = Registry.of([noisy], {"reading": [samples.SCHEMAS["reading"]]})
app.load_settings = lambda environ: support.settings()
app.clients = lambda environ, region: NoClients()
app.consumer = lambda settings, client: ShardConsumer(
    support.dependencies(support.Stores(), registry, segment_records=2, checkpoint_seconds=1, stop_after_failures=3)
)
"""
ALONE = [sys.executable, "-c", _WORLD + "sys.exit(record_processor.main())"]
HOST = [
    sys.executable,
    "-c",
    _WORLD + "from stream_app.forkserver import main as host\nsys.exit(host.main())",
]
QUICK = Restarts(limit=3, base_seconds=0.0)


def environ(**more: str) -> dict[str, str]:
    return {
        **LOW_MEMORY_ENVIRONMENT,
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "STREAM_APP_LOG_LEVEL": "INFO",
        **more,
    }


@dataclass
class Hosted:
    """A supervised fork server and its log events."""

    environ: Mapping[str, str]
    lines: list[dict[str, Any]] = field(default_factory=list)
    news: threading.Condition = field(default_factory=threading.Condition)

    def tell(self, line: dict[str, Any]) -> None:
        with self.news:
            self.lines.append(line)
            self.news.notify_all()

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]

    def wait(self, event: str, count: int = 1) -> dict[str, Any]:
        """Wait for the count-th log line of an event and return it."""
        with self.news:
            assert self.news.wait_for(lambda: len(self.of(event)) >= count, PATIENCE), self.lines
        return self.of(event)[count - 1]

    @property
    def process(self) -> psutil.Process:
        """The fork server that was started last."""
        self.wait("host_started")
        return psutil.Process(self.of("host_started")[-1]["pid"])

    def shard(self, alone: Sequence[str] = ("/bin/false",)) -> tuple[Player, subprocess.Popen[bytes]]:
        """Start a launcher like KCL; without a fork server it executes `alone`."""
        return spawn(launcher(alone), self.environ)

    def worker(self, begin: Callable[[], object]) -> psutil.Process:
        """Return the process that the fork server forks during `begin`."""
        before = {child.pid for child in self.process.children()}
        begin()
        (new,) = [child for child in self.process.children() if child.pid not in before]
        return new


def launcher(alone: Sequence[str]) -> list[str]:
    return [sys.executable, "-I", "-S", str(client.__file__), *alone]


@contextmanager
def hosting(
    folder: Path, program: Sequence[str] = HOST, restarts: Restarts = QUICK, **more: str
) -> Iterator[Hosted]:
    """Run a fork server with a settings file in `folder`."""
    given = environ(STREAM_APP_PROPERTIES=str(folder / "effective.properties"), **more)
    hosted = Hosted(given)
    with run_forkserver(folder, given, hosted.tell, restarts, program) as added:
        hosted.environ = given | added
        yield hosted


def gone(process: psutil.Process) -> bool:
    """Return whether the process ends within `PATIENCE`; an unreaped orphan (zombie) counts as ended."""
    try:
        process.wait(PATIENCE)
    except psutil.TimeoutExpired:
        return process.status() == psutil.STATUS_ZOMBIE
    return True
