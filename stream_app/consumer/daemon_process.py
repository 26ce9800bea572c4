"""One daemon's life: started in a session of its own, read until it ends, stopped by a signal to it alone."""

from __future__ import annotations

import math
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from stream_app.consumer.daemon_log import DaemonLog, Line, OnLine, launcher_line
from stream_app.consumer.supervise import Ending, Stop

_TETHER = Path(__file__).with_name("tether.py")
_QUIET_SECONDS = 0.25  # after which a line waits no longer for its continuation
_POLL_SECONDS = 0.05


def group_lives(group: int) -> bool:
    """Whether a process of the group still runs. The dead whom nobody buried do not count: in a container the
    first process often buries no orphans, and signal 0 would find them for ever."""
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
    except (OSError, ValueError):  # it ended while we looked
        return False
    return int(its_group) == group and state not in "ZX"


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds until a daemon that should end is killed.

    `stop`: from the request on, so above shutdownGraceMillis. `crash`: after a child failed, when KCL goes on
    for shutdownGraceMillis with that shard standing still. `children`: for a dead daemon's children to leave.
    """

    stop: float = 30.0
    crash: float = 10.0
    children: float = 10.0


@dataclass(slots=True)
class _Shards:
    """What of the daemon's children must be known to end it early."""

    busy: set[str] = field(default_factory=set)
    failed: bool = False
    gone: bool = False
    code: int | None = None

    def see(self, line: Line) -> None:
        if line.get("source") != "kcl":
            return
        event, shard = line.get("event"), str(line.get("shard"))
        if event == "shard_initialized":
            self.busy.add(shard)
        elif event in ("shard_ended", "lease_lost", "shard_stopping", "child_silent"):
            self.busy.discard(shard)
        elif event == "child_failed":
            self.failed = True
        elif event == "child_exited" and self.failed:
            self.gone = True
            self.code = self.code or line["code"] or None

    @property
    def nothing_to_lose(self) -> bool:
        """A child failed and has left, and each of the others had its last chance to checkpoint."""
        return self.failed and self.gone and not self.busy


class _Lines:
    """Bytes of a pipe, cut into lines."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.open = True
        self._rest = b""

    def read(self) -> list[str]:
        """The whole lines that are there to be read without waiting."""
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
    """A running daemon. `follow` it in the thread that made it: Linux ends the daemon with that thread."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        environ: Mapping[str, str],
        on_line: OnLine,
        stop: Stop,
        now: Callable[[], str],
        patience: Patience = Patience(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts `command` with `environ` and nothing else of this process's environment."""
        self._shards = _Shards()
        self._on_line = on_line
        self._stop = stop
        self._patience = patience
        self._clock = clock
        self._now = now
        self._deadline: float | None = None
        self._wishes = 0
        tethered = [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), *command]
        # Its own session: a terminal's Ctrl-C reaches neither the JVM nor its children.
        self._process = subprocess.Popen(
            tethered,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._log = DaemonLog(self._see, now)

    @property
    def pid(self) -> int:
        """The JVM's process id; also that of its process group."""
        return self._process.pid

    def follow(self) -> Ending:
        """Read the daemon's lines and carry out wishes to stop, until it and its children have ended.

        An exception of `on_line` kills the daemon and comes through.
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
        return Ending(self._process.returncode, self._wishes > 0, self._shards.code)

    def _see(self, line: Line) -> None:
        self._shards.see(line)
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
                if not selector.select(self._timeout()):
                    self._log.flush()
                # Asked before the last read, which then finds all it wrote. A child that inherited the pipes would
                # keep them open.
                ended = self._process.poll() is not None
                # A child's line is written to stdout before its copy to stderr: read the copy first, judge it last.
                copies, lines = err.read(), out.read()
                for line in lines:
                    self._log.out(line)
                for line in copies:
                    self._log.err(line)
                for stream in (out, err):
                    if not stream.open and stream.fd in selector.get_map():
                        selector.unregister(stream.fd)
                self._decide()
                if ended:
                    break
        self._log.flush()

    def _timeout(self) -> float:
        if self._deadline is None:
            return _QUIET_SECONDS
        return min(_QUIET_SECONDS, max(0.0, self._deadline - self._clock()))

    def _decide(self) -> None:
        """Ask the daemon to leave, or end it, where it is time."""
        wishes = self._stop.acknowledge()
        now = self._clock()
        if wishes and not self._wishes:
            # SIGTERM for either signal: a JVM that was started with SIGINT ignored would go on ignoring it.
            self._process.send_signal(signal.SIGTERM)
            self._deadline = now + self._patience.stop
        elif self._shards.failed and self._deadline is None:
            self._deadline = now + self._patience.crash
        too_late = self._deadline is not None and now >= self._deadline
        if wishes > max(1, self._wishes) or (too_late and wishes):
            self._kill_group(wait=0.0)
            self._deadline = math.inf
        elif too_late or (self._shards.nothing_to_lose and not wishes):
            self._process.kill()  # its children see the end of their stdin, and may finish what they are at
            self._deadline = math.inf
        self._wishes = wishes

    def _kill_group(self, wait: float) -> None:
        """End what is left of the process group, after `wait` seconds in which it may end by itself."""
        until = self._clock() + wait
        while group_lives(self.pid):
            if self._clock() >= until:
                with suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
                return
            time.sleep(_POLL_SECONDS)
