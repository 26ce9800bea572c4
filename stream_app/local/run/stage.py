"""How far a run has come."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from stream_app.local.run.progress import Progress
from stream_app.local.run.tracker import Tracker


@dataclass
class Stage:
    """How far a run has come, for whoever shows it."""

    name: str = "starting"
    sent: int = 0
    notes: list[str] = field(default_factory=list)
    tracker: Tracker = field(default_factory=Tracker)
    progress: Progress = field(default_factory=Progress)
    started: float = field(default_factory=time.monotonic)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def note(self, what: str) -> None:
        """Say what is being done."""
        self.name = what
        self.notes.append(what)

    def to_json(self) -> dict[str, Any]:
        """What is known of a run that has no report."""
        return {
            "stage": self.name,
            "elapsed_s": self.elapsed,
            "sent": self.sent,
            "processed": self.tracker.records,
            "committed": self.tracker.committed,
            "waiting": self.progress.to_json(),
        }
