"""When a daemon is asked to leave, and when it is ended: pure, from its lines, the wishes to stop and the time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from stream_app.daemon.log import Line
from stream_app.errors import CONFIG_ERROR

_LAST_WORDS = frozenset({"shard_ended", "lease_lost", "shard_stopping", "child_silent"})


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds until a daemon that should end is ended.

    `stop`: from the request on, so above shutdownGraceMillis. `leave`: after the last words of all its shards, when
    it has begun to take shards up again, so above failoverTimeMillis. `crash`: after a child failed. `children`: for
    a dead daemon's children to end by themselves.
    """

    stop: float = 30.0
    leave: float = 15.0
    crash: float = 10.0
    children: float = 10.0


class Act(Enum):
    """What is to be done to a daemon."""

    ASK = "SIGTERM to the JVM"
    END_JVM = "SIGKILL to the JVM; its children see the end of their stdin, and may finish what they are at"
    END_ALL = "SIGKILL to the JVM and its children"


class Watch:
    """Decides on one daemon. A shard has its last words when its child was given a last chance to checkpoint.

    When a child fails, KCL gives the others their last words, then takes their shards up again and goes on for
    shutdownGraceMillis while the failed one stands still. When it is asked to leave and holds the lease of a shard
    that has ended (it does for minutes after each split or merge), it waits for that one's last words, which never
    come, and takes the others up again likewise. In both cases nothing is gained by waiting.
    """

    def __init__(self, patience: Patience) -> None:
        self.forced = False
        """Whether a stop was forced before all shards had their last words."""
        self.child: int | None = None
        """The exit code of the child that failed, as far as it is known and not 0."""
        self._patience = patience
        self._busy: set[str] = set()
        self._had_last_words: set[str] = set()
        self._initialized: set[str] = set()
        self._misconfigured: set[str] = set()
        self._failed = self._failed_left = self._taken_up_again = False
        self._stop_by: float | None = None
        self._leave_by: float | None = None
        self._crash_by: float | None = None

    def see(self, line: Line) -> None:
        """Take in what the daemon and its children say."""
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
            self._taken_up_again |= shard in self._had_last_words
        elif event in _LAST_WORDS:
            self._busy.discard(shard)
            self._had_last_words.add(shard)
        elif event == "child_failed":
            self._failed = True
        elif event == "child_exited" and self._failed:
            self._failed_left = True
            self.child = self.child or self._code(line["code"], shard) or None

    def _code(self, code: int, shard: str) -> int:
        """1 for a user's code that exits with 2: a wrong configuration is found at the start, or logged."""
        crashed = shard in self._initialized and shard not in self._misconfigured
        return 1 if code == CONFIG_ERROR and crashed else code

    def decide(self, wishes: int, now: float) -> Act | None:
        """What to do, if anything, given how often a stop was asked for and the time in seconds."""
        if wishes and self._stop_by is None:
            self._stop_by = now + self._patience.stop
            return Act.ASK
        if self._stop_by is None:
            return self._after_crash(now)
        if wishes > 1 or now >= self._stop_by:
            self.forced = True
            return Act.END_ALL
        if not self._taken_up_again or self._busy:
            return None
        self._leave_by = self._leave_by or now + self._patience.leave
        return Act.END_JVM if now >= self._leave_by else None

    def _after_crash(self, now: float) -> Act | None:
        if not self._failed:
            return None
        self._crash_by = self._crash_by or now + self._patience.crash
        if now >= self._crash_by or (self._failed_left and not self._busy):
            return Act.END_JVM
        return None
