"""The shard host's owner: opens its socket, starts it, starts it again when it ends, and lends it to the daemon.

The socket is the owner's. While no host serves it, shards wait in its queue for the next one; when there will be
none, it is closed, and they go alone. Consumers that run are not disturbed by any of it.
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
from stream_app.forkserver.server import UNFIT

SETTING = "app.shard_host"
SETTING_ENVIRONMENT = "STREAM_APP_SHARD_HOST"
CONSUMER = "stream-app-consumer"

_LAUNCHER = Path(client.__file__)
_PARENT_DEATH_SIGNAL = Path(__file__).with_name("parent_death_signal.py")
_PROGRAM = (sys.executable, "-P", "-m", "stream_app.forkserver.main")
_LONGEST_PATH = 107  # of a Unix socket on Linux
_PLAIN = re.compile(r"[!-\[\]-~]+")  # KCL splits at blanks, a properties file takes \ for an escape
_USUAL = Restarts(limit=5, window_seconds=600.0, base_seconds=0.2, cap_seconds=10.0)
_LEAVING = 10.0  # seconds for a host to leave when it is asked to


def command(executable: str) -> str | None:
    """What KCL is to start in place of `executable`; None where a host cannot stand in for it.

    That is: another program than ours, a system other than Linux, or a path that has no form in the properties.
    """
    words = executable.split()
    if sys.platform != "linux" or len(words) != 1 or Path(words[0]).name != CONSUMER:
        return None
    paths = (sys.executable, str(_LAUNCHER), words[0])
    if not all(_PLAIN.fullmatch(path) for path in paths):
        return None
    return f"{sys.executable} -I -S {_LAUNCHER} {words[0]}"


def wanted(properties: Mapping[str, str], environ: Mapping[str, str]) -> bool:
    """Whether the setting `shard_host` is on, as it is where nothing is said."""
    return (environ.get(SETTING_ENVIRONMENT) or properties.get(SETTING) or "true") == "true"


@contextmanager
def keep_host(
    folder: Path,
    environ: Mapping[str, str],
    tell: Callable[[Line], None],
    restarts: Restarts = _USUAL,
    program: Sequence[str] = _PROGRAM,
) -> Iterator[dict[str, str]]:
    """Keep a host of the settings file in `folder` running; what is to be added to the children's environment.

    `environ` is the host's whole environment, `program` its command, to which the socket's descriptor is added.
    `tell` is called in another thread, with lines of the source `host`. Nothing is added where the folder's path
    is too long for a socket: then every shard goes alone.
    """
    path = folder / "host.sock"
    if len(os.fsencode(path)) > _LONGEST_PATH:
        tell({"level": "WARN", "source": "host", "event": "host_off", "message": f"{path} is too long"})
        yield {}
        return
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))  # only this user may enter the folder
    listener.listen(4096)
    keeper = _Keeper(listener, environ, tell, restarts, program)
    thread = threading.Thread(target=keeper.run, name="shard host", daemon=True)
    thread.start()
    try:
        yield {client.HOST: str(path)}
    finally:
        keeper.stop()
        thread.join()


class _Keeper:
    """Runs one host after the other, in a thread that lives as long: Linux ends the host with it."""

    def __init__(
        self,
        listener: socket.socket,
        environ: Mapping[str, str],
        tell: Callable[[Line], None],
        restarts: Restarts,
        program: Sequence[str],
    ) -> None:
        self._program = program
        self._listener, self._environ, self._restarts = listener, environ, restarts
        self._tell = tell
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        """Have the host leave, and start no other."""
        self._stopping.set()
        with self._lock:
            if self._process is not None:
                self._process.terminate()

    def run(self) -> None:
        """Until `stop`, or until a host is not worth another start: then whoever waits goes alone."""
        with self._listener:
            self._run()

    def _run(self) -> None:
        recent: deque[float] = deque()
        while (code := self._one()) is not None:
            now = monotonic()
            while recent and now - recent[0] > self._restarts.window_seconds:
                recent.popleft()
            if code in (UNFIT, CONFIG_ERROR) or len(recent) >= self._restarts.limit:
                self._say("host_gave_up", "WARN", code=code, message="each shard loads everything itself")
                return
            seconds = self._restarts.delay(len(recent), random.random())
            recent.append(now)
            self._say("host_restarting", "WARN", code=code, in_seconds=round(seconds, 3))
            if self._stopping.wait(seconds):
                return

    def _one(self) -> int | None:
        """One host's life; its exit code, None when it was asked to leave."""
        bound = [sys.executable, "-I", "-S", str(_PARENT_DEATH_SIGNAL), str(os.getpid())]
        descriptor = self._listener.fileno()
        with self._lock:
            if self._stopping.is_set():
                return None
            self._process = process = subprocess.Popen(
                [*bound, *self._program, str(descriptor)],
                env=dict(self._environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(descriptor,),
                start_new_session=True,
            )
        self._say("host_started", pid=process.pid)
        assert process.stderr is not None
        with process.stderr as lines:
            for line in lines:
                self._pass_on(line.decode("utf-8", "replace").rstrip())
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LEAVING)
        process.kill()
        code = process.wait()
        return None if self._stopping.is_set() else code

    def _pass_on(self, text: str) -> None:
        """A line of the host's own log, or what some library wrote."""
        try:
            said = msgspec.json.decode(text, type=dict[str, object])
        except msgspec.DecodeError:
            said = {"event": "stderr", "message": text}
        self._tell({"level": "INFO", **said, "source": "host"})

    def _say(self, event: str, level: str = "INFO", **more: object) -> None:
        self._tell({"level": level, "source": "host", "event": event, **more})
