"""The current status of a run."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TypedDict

from stream_app.local.run.progress import Progress, ProgressDocument
from stream_app.local.run.tracker import Tracker


class StatusDocument(TypedDict):
    """The status as JSON, for a run that ends without a report."""

    stage: str
    elapsed_s: float
    sent: int
    processed: int
    committed: int
    waiting: ProgressDocument


@dataclass
class RunStatus:
    """The current step of a run with its counters, shared with the thread that displays them."""

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

    def note(self, step: str) -> None:
        """Record the start of a step."""
        self.name = step
        self.notes.append(step)

    def to_json(self) -> StatusDocument:
        """Return the status as built-in types."""
        return {
            "stage": self.name,
            "elapsed_s": self.elapsed,
            "sent": self.sent,
            "processed": self.tracker.records,
            "committed": self.tracker.committed,
            "waiting": self.progress.to_json(),
        }
