"""Shutdown policy: decides from log lines, stop requests and the clock when to send SIGTERM or SIGKILL."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from stream_app.daemon.log import Line
from stream_app.errors import CONFIG_ERROR

_FINAL_EVENTS = frozenset({"shard_ended", "lease_lost", "shard_stopping", "child_silent"})


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds after which a daemon that should end is killed.

    stop      after a requested stop; above shutdownGraceMillis
    leave     after the final events of all shards, if it has started to initialize shards again; above
              failoverTimeMillis
    crash     after a child process failed
    children  for the child processes of a daemon that has ended to end by themselves
    """

    stop: float = 30.0
    leave: float = 15.0
    crash: float = 10.0
    children: float = 10.0


class Action(Enum):
    """A signal to send to a daemon."""

    TERMINATE = "SIGTERM to the JVM"
    KILL_JVM = "SIGKILL to the JVM; its child processes read the end of stdin and may finish their work"
    KILL_ALL = "SIGKILL to the JVM and its child processes"


class ShutdownPolicy:
    """Decides when to send signals to one daemon.

    The final event of a shard is the last chance of its child process to checkpoint. When a child process fails, KCL
    shuts down the other ones, then initializes their shards again and continues for shutdownGraceMillis, while the
    failed shard makes no progress. When KCL is asked to stop while it holds the lease of a shard that has ended (as
    it does for minutes after each split or merge), it waits for the final event of that shard, which never occurs,
    and initializes the other shards again as well. In both cases waiting gains nothing.
    """

    def __init__(self, patience: Patience) -> None:
        self.forced = False
        """Whether a stop was forced before the final events of all shards."""
        self.child: int | None = None
        """The exit code of the failed child process, if known and not 0."""
        self._patience = patience
        self._busy: set[str] = set()
        self._finished: set[str] = set()
        self._initialized: set[str] = set()
        self._misconfigured: set[str] = set()
        self._failed = self._failed_exited = self._reinitialized = False
        self._stop_by: float | None = None
        self._leave_by: float | None = None
        self._crash_by: float | None = None

    def see(self, line: Line) -> None:
        """Process a log line of the daemon or of a shard."""
        event, shard = line.get("event"), str(line.get("shard"))
        if line.get("source") == "app" and line.get("exit_code") == CONFIG_ERROR:
            self._misconfigured.add(shard)
        if line.get("source") != "kcl":
            return
        if event == "shard_initialized":
            self._initialized.add(shard)
        if event == "shard_initialized" and self._stop_by is None:
            self._busy.add(shard)
        elif event == "shard_initialized":
            self._reinitialized |= shard in self._finished
        elif event in _FINAL_EVENTS:
            self._busy.discard(shard)
            self._finished.add(shard)
        elif event == "child_failed":
            self._failed = True
        elif event == "child_exited" and self._failed:
            self._failed_exited = True
            self.child = self.child or self._code(line["code"], shard) or None

    def _code(self, code: int, shard: str) -> int:
        """Return 1 for user code that exits with 2; invalid configuration is found at the start or logged."""
        crashed = shard in self._initialized and shard not in self._misconfigured
        return 1 if code == CONFIG_ERROR and crashed else code

    def decide(self, requests: int, now: float) -> Action | None:
        """Return the signal to send, if any, given the number of stop requests and the time in seconds."""
        if requests and self._stop_by is None:
            self._stop_by = now + self._patience.stop
            return Action.TERMINATE
        if self._stop_by is None:
            return self._after_crash(now)
        if requests > 1 or now >= self._stop_by:
            self.forced = True
            return Action.KILL_ALL
        if not self._reinitialized or self._busy:
            return None
        self._leave_by = self._leave_by or now + self._patience.leave
        return Action.KILL_JVM if now >= self._leave_by else None

    def _after_crash(self, now: float) -> Action | None:
        if not self._failed:
            return None
        self._crash_by = self._crash_by or now + self._patience.crash
        if now >= self._crash_by or (self._failed_exited and not self._busy):
            return Action.KILL_JVM
        return None
