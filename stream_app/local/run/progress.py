"""What moves while a run waits for everything to be stored, and when it has waited long enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stream_app.local.run.drain import Remaining

STUCK_SECONDS = 90.0
# What comes too early is hidden for at most as long as it has been waiting, and a little more.
_MARGIN_SECONDS = 30.0


@dataclass
class Progress:
    """Follows what is left and what was done; any change but one between visible and in flight is progress.

    `clock` is in seconds, monotonic. `last` says what moved last, and `at` when.
    """

    clock: Callable[[], float] = time.monotonic
    last: str = "nothing"
    remaining: Remaining | None = None
    done: dict[str, int] = field(default_factory=dict)
    started: float = field(init=False)
    at: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.at = self.clock()

    def begin(self) -> None:
        """Begin to wait: what moves from now on is progress."""
        self.at = self.clock()

    def see(self, remaining: Remaining, done: Mapping[str, int]) -> None:
        """Take note of what is left, and of some counts of what was done."""
        known = self.done
        moved = [
            f"{name} ({known[name]} to {count})"
            for name, count in done.items()
            if known.setdefault(name, count) != count
        ]
        if self.remaining is not None:
            moved += _moved(self.remaining, remaining)
        self.remaining = remaining
        known.update(done)
        if moved:
            self.last, self.at = ", ".join(moved), self.clock()

    @property
    def idle(self) -> float:
        """Seconds since the last progress."""
        return self.clock() - self.at

    @property
    def patience(self) -> float:
        """Seconds without progress after which nothing more is to be expected.

        A message that came too early is hidden for about as long as it had been waiting by then, so while messages
        are in flight it is as long as the run had lasted at its last progress.
        """
        in_flight = self.remaining is not None and any(d.in_flight for d in self.remaining.queues.values())
        hidden = self.at - self.started + _MARGIN_SECONDS if in_flight else 0.0
        return max(STUCK_SECONDS, hidden)

    @property
    def stuck(self) -> bool:
        """Whether it has waited long enough."""
        return self.idle > self.patience

    def __str__(self) -> str:
        """What is waited for, and what moved last."""
        left = "the first look" if self.remaining is None else str(self.remaining)
        return f"waiting for {left}; the last progress, {self.idle:.0f} s ago, was in {self.last}"

    def to_json(self) -> dict[str, Any]:
        """Built-in types."""
        left = self.remaining
        queues = {} if left is None else {name: depth._asdict() for name, depth in left.queues.items()}
        return {
            "queues": queues,
            "shards": [] if left is None else list(left.shards),
            "last_progress": self.last,
            "last_progress_s_ago": round(self.idle, 1),
        }


def _moved(before: Remaining, now: Remaining) -> list[str]:
    moved = []
    were = {**before.queues, **before.others}
    for name, depth in {**now.queues, **now.others}.items():
        was = were.get(name)
        if was is not None and was.total != depth.total:
            moved.append(f"queue {name} ({was.total} to {depth.total} messages)")
    if before.shards != now.shards:
        moved.append(f"shards ({len(before.shards)} to {len(now.shards)} not committed to their end)")
    return moved
