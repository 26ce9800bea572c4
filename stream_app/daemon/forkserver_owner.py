"""Starts the fork server, restarts it when it ends, and passes its socket to the daemon.

This process owns the socket. While no fork server is running, shards wait in the queue of the socket for the next
one. If there will be none, the socket is closed and shards start without a fork server. Running consumers are not
affected.
"""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic

import msgspec

from stream_app.daemon.log import Line
from stream_app.daemon.supervisor import Restarts
from stream_app.errors import CONFIG_ERROR
from stream_app.forkserver import client
from stream_app.forkserver.server import CANNOT_FORK

SETTING = "app.shard_host"
SETTING_ENVIRONMENT = "STREAM_APP_SHARD_HOST"
CONSUMER = "stream-app-consumer"

_LAUNCHER = Path(client.__file__)
_PARENT_DEATH_SIGNAL = Path(__file__).with_name("parent_death_signal.py")
_PROGRAM = (sys.executable, "-P", "-m", "stream_app.forkserver.main")
_MAX_PATH_BYTES = 107  # of a Unix socket on Linux
_PLAIN = re.compile(r"[!-\[\]-~]+")  # KCL splits at spaces, and properties files treat \ as an escape
_DEFAULT_RESTARTS = Restarts(limit=5, window_seconds=600.0, base_seconds=0.2, cap_seconds=10.0)
_STOP_SECONDS = 10.0


def command(executable: str) -> str | None:
    """Return the command that KCL starts in place of `executable`, None if a fork server cannot be used.

    It can be used for the consumer of this package, on Linux, with paths that can be written to a properties file.
    """
    words = executable.split()
    if sys.platform != "linux" or len(words) != 1 or Path(words[0]).name != CONSUMER:
        return None
    paths = (sys.executable, str(_LAUNCHER), words[0])
    if not all(_PLAIN.fullmatch(path) for path in paths):
        return None
    return f"{sys.executable} -I -S {_LAUNCHER} {words[0]}"


def enabled(properties: Mapping[str, str], environ: Mapping[str, str]) -> bool:
    """Return whether the setting `shard_host` is on, which is the default."""
    return (environ.get(SETTING_ENVIRONMENT) or properties.get(SETTING) or "true") == "true"


@contextmanager
def run_forkserver(
    folder: Path,
    environ: Mapping[str, str],
    log: Callable[[Line], None],
    restarts: Restarts = _DEFAULT_RESTARTS,
    program: Sequence[str] = _PROGRAM,
) -> Iterator[dict[str, str]]:
    """Keep a fork server running; yields variables to add to the environment of the shard processes.

    `folder` contains the properties file. `environ` is the complete environment of the fork server, `program` its
    command, to which the descriptor of the socket is appended. `log` is called in another thread with lines of the
    source `host`. If the path of the folder is too long for a socket, nothing is added and every shard starts
    without a fork server.
    """
    path = folder / "host.sock"
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        log({"level": "WARN", "source": "host", "event": "host_off", "message": f"{path} is too long"})
        yield {}
        return
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))  # the folder is accessible to this user only
    listener.listen(4096)
    runner = _Runner(listener, environ, log, restarts, program)
    thread = threading.Thread(target=runner.run, name="fork server", daemon=True)
    thread.start()
    try:
        yield {client.HOST: str(path)}
    finally:
        runner.stop()
        thread.join()


class _Runner:
    """Runs fork servers one after the other in a thread, with which Linux ends them."""

    def __init__(
        self,
        listener: socket.socket,
        environ: Mapping[str, str],
        log: Callable[[Line], None],
        restarts: Restarts,
        program: Sequence[str],
    ) -> None:
        self._program = program
        self._listener, self._environ, self._restarts = listener, environ, restarts
        self._log_line = log
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        """Terminate the fork server and start no other one."""
        self._stopping.set()
        with self._lock:
            if self._process is not None:
                self._process.terminate()

    def run(self) -> None:
        """Run until `stop` or until restarts are exhausted; then waiting shards start without a fork server."""
        with self._listener:
            self._run()

    def _run(self) -> None:
        recent: deque[float] = deque()
        while (code := self._run_once()) is not None:
            now = monotonic()
            while recent and now - recent[0] > self._restarts.window_seconds:
                recent.popleft()
            if code in (CANNOT_FORK, CONFIG_ERROR) or len(recent) >= self._restarts.limit:
                self._log("host_gave_up", "WARN", code=code, message="shards start without the fork server")
                return
            seconds = self._restarts.delay(len(recent), random.random())
            recent.append(now)
            self._log("host_restarting", "WARN", code=code, in_seconds=round(seconds, 3))
            if self._stopping.wait(seconds):
                return

    def _run_once(self) -> int | None:
        """Run a fork server until it ends; returns its exit code, None after `stop`."""
        wrapper = [sys.executable, "-I", "-S", str(_PARENT_DEATH_SIGNAL), str(os.getpid())]
        descriptor = self._listener.fileno()
        with self._lock:
            if self._stopping.is_set():
                return None
            self._process = process = subprocess.Popen(
                [*wrapper, *self._program, str(descriptor)],
                env=dict(self._environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(descriptor,),
                start_new_session=True,
            )
        self._log("host_started", pid=process.pid)
        assert process.stderr is not None
        with process.stderr as lines:
            for line in lines:
                self._forward(line.decode("utf-8", "replace").rstrip())
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        process.kill()
        code = process.wait()
        return None if self._stopping.is_set() else code

    def _forward(self, text: str) -> None:
        """Forward a line of the fork server's log, or of the output of a library."""
        try:
            fields = msgspec.json.decode(text, type=dict[str, object])
        except msgspec.DecodeError:
            fields = {"event": "stderr", "message": text}
        self._log_line({"level": "INFO", **fields, "source": "host"})

    def _log(self, event: str, level: str = "INFO", **more: object) -> None:
        self._log_line({"level": level, "source": "host", "event": event, **more})
