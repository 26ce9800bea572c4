"""One daemon process: started in its own session, followed until it ends, stopped by signals to it alone."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from stream_app.daemon.crash_report import CrashReport
from stream_app.daemon.log import DaemonLog, Line, OnLine, launcher_line
from stream_app.daemon.shutdown_policy import Action, Patience, ShutdownPolicy
from stream_app.daemon.supervisor import Ending, Stop

_SIGNAL = Path(__file__).with_name("parent_death_signal.py")
_QUIET_SECONDS = 0.25  # after which a line is emitted without waiting for a continuation
_POLL_SECONDS = 0.05
_KILL_SECONDS = 5.0  # a killed process may still be in a system call


def group_alive(group: int) -> bool:
    """Return whether a process of the group is running.

    Zombies do not count: in a container the first process often does not reap orphans, and signal 0 would find them.
    """
    if not Path("/proc/self/stat").exists():
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        return True
    return any(_runs_in(group, stat) for stat in Path("/proc").glob("[0-9]*/stat"))


def _runs_in(group: int, stat: Path) -> bool:
    try:
        state, _parent, its_group = stat.read_text().rpartition(")")[2].split()[:3]
    except (OSError, ValueError):  # it ended meanwhile
        return False
    return int(its_group) == group and state not in "ZX"


class _Lines:
    """Splits the bytes of a pipe into lines."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.open = True
        self._rest = b""

    def read(self) -> list[str]:
        """Return the complete lines that are available without waiting."""
        found: list[str] = []
        while self.open:
            try:
                chunk = os.read(self.fd, 65_536)
            except BlockingIOError:
                break
            if not chunk:
                self.open = False
                chunk = b"\n" if self._rest else b""
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            found += (line.rstrip(b"\r").decode("utf-8", "replace") for line in lines)
        return found


class DaemonProcess:
    """A running daemon; call `follow` in the thread that created it, as Linux ends the daemon with that thread."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        environ: Mapping[str, str],
        on_line: OnLine,
        stop: Stop,
        now: Callable[[], str],
        patience: Patience,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start `command` with `environ` as its complete environment."""
        self._policy, self._crash = ShutdownPolicy(patience), CrashReport()
        self._on_line = on_line
        self._stop = stop
        self._patience = patience
        self._clock = clock
        self._now = now
        wrapped = [sys.executable, "-I", "-S", str(_SIGNAL), str(os.getpid()), *command]
        # A new session, so that Ctrl-C reaches neither the JVM nor its child processes.
        self._process = subprocess.Popen(
            wrapped,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._log = DaemonLog(self._see, now)

    @property
    def pid(self) -> int:
        """The process id of the JVM, which is also the id of its process group."""
        return self._process.pid

    def follow(self) -> Ending:
        """Read lines and perform requested stops until the daemon and its child processes have ended.

        An exception of `on_line` kills the daemon and is propagated.
        """
        try:
            self._on_line(launcher_line(self._now(), {"event": "daemon_started", "pid": self.pid}))
            self._read_all()
        except BaseException:
            self._kill_group(wait=0.0)
            raise
        finally:
            with self._process:  # closes the pipes and waits
                pass
        self._kill_group(wait=self._patience.children)
        policy = self._policy
        stopped, recovering = self._stop.requests > 0, self._crash.recovering
        return Ending(self._process.returncode, stopped, policy.child, policy.forced, recovering)

    def _see(self, line: Line) -> None:
        self._policy.see(line)
        self._crash.see(line)
        self._on_line(line)

    def _read_all(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        out, err = _Lines(self._process.stdout.fileno()), _Lines(self._process.stderr.fileno())
        with selectors.DefaultSelector() as selector:
            for stream in (out, err):
                selector.register(stream.fd, selectors.EVENT_READ)
            selector.register(self._stop.fileno(), selectors.EVENT_READ)
            while out.open or err.open:
                if not selector.select(_QUIET_SECONDS):
                    self._log.flush()
                # Polled before the last read, which then reads everything that was written. The end of file is not
                # sufficient, because a child process that inherited the pipes keeps them open.
                ended = self._process.poll() is not None
                # The daemon writes a child's line to stdout before its copy to stderr: read stderr first,
                # process it last.
                copies, lines = err.read(), out.read()
                for line in lines:
                    self._log.out(line)
                for line in copies:
                    self._log.err(line)
                for stream in (out, err):
                    if not stream.open and stream.fd in selector.get_map():
                        selector.unregister(stream.fd)
                if ended:
                    break
                self._perform(self._policy.decide(self._stop.acknowledge(), self._clock()))
        self._log.flush()

    def _perform(self, action: Action | None) -> None:
        if action is Action.TERMINATE:
            # SIGTERM for SIGINT too: a JVM that was started with SIGINT ignored keeps ignoring it.
            self._process.terminate()
        elif action is Action.KILL_JVM:
            self._process.kill()
        elif action is Action.KILL_ALL:
            self._kill_group(wait=0.0)

    def _kill_group(self, wait: float) -> None:
        """Kill the remaining processes of the group after waiting up to `wait` seconds for them to end."""
        if self._group_ends(wait):
            return
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._group_ends(_KILL_SECONDS)

    def _group_ends(self, wait: float) -> bool:
        deadline = self._clock() + wait
        while alive := group_alive(self.pid):
            if self._clock() >= deadline:
                break
            time.sleep(_POLL_SECONDS)
        return not alive
