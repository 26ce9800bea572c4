"""`stream-app daemon` in a separate process, its descendants, and the faults that end them."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, TypeVar

import psutil

from tests.contracts.forkservers import Hosted, gone

MARK = "STREAM_APP_TEST_RUN"
PATIENCE = 120.0  # for a machine that is busy with much else
T = TypeVar("T")
_LOOK = 0.02
_COMMAND = (sys.executable, "-m", "stream_app.cli", "daemon", "--properties")


class Consumer:
    """The command, or the next one once it was killed. Its family is found by a mark in its environment.

    `told` has what all of them said, as lines of the command's log.
    """

    def __init__(
        self, properties: Path, environ: Mapping[str, str], log: Path, folder: Path | None = None
    ) -> None:
        """`folder` is where it runs, and where a user's event types are; None: where this process runs."""
        self._folder = folder
        self._command = [*_COMMAND, str(properties)]
        self._environ = {**environ, MARK: uuid.uuid4().hex}
        self._log = log
        self.told = Hosted(self._environ)
        self.start()

    def start(self) -> None:
        """Start the command."""
        self._process = subprocess.Popen(
            self._command,
            env=self._environ,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert self._process.stderr is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stderr,), daemon=True)
        self._reader.start()

    def _read(self, lines: IO[bytes]) -> None:
        with self._log.open("ab") as log, lines:
            for line in lines:
                log.write(line)
                log.flush()
                with suppress(json.JSONDecodeError):
                    self.told.tell(json.loads(line))

    def check(self) -> None:
        """Whether it runs."""
        assert self._process.poll() is None, self.told.lines[-20:]

    def ready(self, shards: int) -> None:
        """Wait until so many shards were ever initialised."""
        wait(lambda: len(self.told.of("shard_initialized")) >= shards)

    def stop(self) -> int:
        """Have it end in order; its exit code, and its log is read to the end."""
        self._process.terminate()
        code = self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def kill(self) -> None:
        """Leave nothing behind, whatever happened."""
        self._process.kill()
        self._process.wait()
        for process in self.family():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    @property
    def pid(self) -> int:
        """The command's."""
        return self._process.pid

    def family(self) -> list[psutil.Process]:
        """All that came of the command and still run, with the command itself."""
        return [process for process in psutil.process_iter() if self._ours(process)]

    def _ours(self, process: psutil.Process) -> bool:
        try:
            marked: str | None = process.environ().get(MARK)
            return marked == self._environ[MARK] and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):  # another user's, or just gone
            return False

    def daemons(self) -> list[psutil.Process]:
        """KCL's, if it runs."""
        return self._running(lambda words: Path(words[0]).name == "java")

    def hosts(self) -> list[psutil.Process]:
        """The shard host, if there is one; it is the one that the command started."""
        return [process for process in self._hosting() if process.ppid() == self.pid]

    def shards(self) -> list[psutil.Process]:
        """Those that speak with KCL: the host's forks, also those that it left, and consumers that went alone."""
        forks = [process for process in self._hosting() if process.ppid() != self.pid]
        return forks + self._running(lambda words: _named(words, "stream-app-consumer"))

    def launchers(self) -> list[psutil.Process]:
        """Those that KCL started for the host's forks, and that now wait for them."""
        return self._running(lambda words: words[0] == "sh")

    def _hosting(self) -> list[psutil.Process]:
        return self._running(lambda words: "stream_app.forkserver.main" in words and words[1] == "-P")

    def _running(self, which: Callable[[list[str]], bool]) -> list[psutil.Process]:
        found = []
        for process in self.family():
            with suppress(psutil.Error):
                words = process.cmdline()
                if words and which(words):
                    found.append(process)
        return found


def _named(words: list[str], program: str) -> bool:
    """Whether it is that script, and not one that is about to become it."""
    return len(words) == 2 and Path(words[1]).name == program


def one(kind: Callable[[], list[psutil.Process]], rng: random.Random) -> psutil.Process:
    """Any of a kind, once there is one."""

    def choose() -> psutil.Process | None:
        found = sorted(kind(), key=lambda process: process.pid)
        return rng.choice(found) if found else None

    return wait(choose)


def wait(what: Callable[[], T | None], patience: float = PATIENCE) -> T:
    """What it gives, once that is something."""
    until = time.monotonic() + patience
    while not (found := what()):
        assert time.monotonic() < until
        time.sleep(_LOOK)
    return found


Act = Callable[[Consumer, random.Random], None]


def kill_shard(consumer: Consumer, rng: random.Random) -> None:
    one(consumer.shards, rng).kill()


def kill_launcher(consumer: Consumer, rng: random.Random) -> None:
    one(consumer.launchers, rng).kill()


def kill_host(consumer: Consumer, rng: random.Random) -> None:
    one(consumer.hosts, rng).kill()


def stop_shard(consumer: Consumer, rng: random.Random) -> None:
    """It hangs, and goes when KCL's patience has ended."""
    process = one(consumer.shards, rng)
    process.suspend()
    wait(lambda: process not in consumer.shards())


def kill_daemon(consumer: Consumer, rng: random.Random) -> None:
    one(consumer.daemons, rng).kill()


def kill_command(consumer: Consumer, _rng: random.Random) -> None:
    """The next one is started at once, as systemd does it; of this one nothing stays."""
    family = [process for process in consumer.family() if process.pid != consumer.pid]
    os.kill(consumer.pid, signal.SIGKILL)
    consumer.start()
    assert all(gone(process) for process in family)


def _gave_up_or_started(told: Hosted, count: int) -> bool:
    return bool(told.of("host_gave_up")) or len(told.of("host_started")) > count


def kill_host_for_good(consumer: Consumer, rng: random.Random) -> None:
    """Each that is started, as soon as it is, until no other comes."""
    told = consumer.told
    for count in itertools.count(1):
        kill_host(consumer, rng)
        wait(partial(_gave_up_or_started, told, count))
        if told.of("host_gave_up"):
            return


def moments(rng: random.Random, acts: int, records: int) -> list[int]:
    """A moment for each act, counted in records sent: any of the part of the records that is its own."""
    each = records * 9 // 10 // acts
    return [rng.randrange(at * each + each // 8, (at + 1) * each) for at in range(acts)]
