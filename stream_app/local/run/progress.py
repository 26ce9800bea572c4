"""Tracks whether a waiting run still makes progress, and decides when to stop waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from stream_app.local.run.drain import Remaining

STUCK_SECONDS = 90.0
# A correction request that arrives too early is hidden for about as long as it has waited, plus this margin.
_MARGIN_SECONDS = 30.0


class ProgressDocument(TypedDict):
    """The progress as JSON."""

    queues: dict[str, dict[str, int]]
    shards: list[str]
    last_progress: str
    last_progress_s_ago: float


@dataclass
class Progress:
    """Compares successive states of a run. Any change, except between visible and in flight, is progress.

    `clock` returns monotonic seconds. `last` describes the last change, `last_at` is its time.
    """

    clock: Callable[[], float] = time.monotonic
    last: str = "nothing"
    remaining: Remaining | None = None
    done: dict[str, int] = field(default_factory=dict)
    started: float = field(init=False)
    last_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.last_at = self.clock()

    def restart(self) -> None:
        """Restart the timeout."""
        self.last_at = self.clock()

    def update(self, remaining: Remaining, done: Mapping[str, int]) -> None:
        """Compare the outstanding work and some counts of completed work with the previous state."""
        known = self.done
        changes = [
            f"{name} ({known[name]} to {count})"
            for name, count in done.items()
            if known.setdefault(name, count) != count
        ]
        if self.remaining is not None:
            changes += _changes(self.remaining, remaining)
        self.remaining = remaining
        known.update(done)
        if changes:
            self.last, self.last_at = ", ".join(changes), self.clock()

    @property
    def idle(self) -> float:
        """Seconds since the last progress."""
        return self.clock() - self.last_at

    @property
    def timeout(self) -> float:
        """Seconds without progress after which the run is stuck.

        A correction request that arrives too early is hidden for about as long as it has waited. While messages are
        in flight, the timeout is therefore at least the duration of the run until its last progress.
        """
        in_flight = self.remaining is not None and any(d.in_flight for d in self.remaining.queues.values())
        hidden = self.last_at - self.started + _MARGIN_SECONDS if in_flight else 0.0
        return max(STUCK_SECONDS, hidden)

    @property
    def stuck(self) -> bool:
        """Whether the timeout has passed without progress."""
        return self.idle > self.timeout

    def __str__(self) -> str:
        """Return the outstanding work and the last progress in words."""
        remaining = "the first check" if self.remaining is None else str(self.remaining)
        return f"waiting for {remaining}; the last progress, {self.idle:.0f} s ago, was in {self.last}"

    def to_json(self) -> ProgressDocument:
        """Return the progress as built-in types."""
        remaining = self.remaining or Remaining({}, ())
        return {
            "queues": {name: depth._asdict() for name, depth in remaining.queues.items()},
            "shards": list(remaining.shards),
            "last_progress": self.last,
            "last_progress_s_ago": round(self.idle, 1),
        }


def _changes(before: Remaining, now: Remaining) -> list[str]:
    changes = []
    previous = {**before.queues, **before.others}
    for name, depth in {**now.queues, **now.others}.items():
        old = previous.get(name)
        if old is not None and old.total != depth.total:
            changes.append(f"queue {name} ({old.total} to {depth.total} messages)")
    if before.shards != now.shards:
        changes.append(f"shards ({len(before.shards)} to {len(now.shards)} not committed to their end)")
    return changes
