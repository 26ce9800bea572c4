"""Reapplies recorded corrections after a replay overwrote the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from stream_app.recovery.correct.calculation.recalculate import UncorrectableError
from stream_app.recovery.correct.history_entry import Entry, position_name
from stream_app.recovery.correct.request import NotReadyError


@dataclass(slots=True)
class Reapplied:
    """Counts of recorded corrections: reapplied, found in place, and not yet possible.

    `impossible` holds the position and the reason of every correction that could not be reapplied.
    """

    applied: int = 0
    there: int = 0
    early: int = 0
    impossible: list[tuple[str, str]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every recorded correction is now in its row."""
        return not self.early and not self.impossible


def reapply_all(entries: Iterable[Entry], reapply: Callable[[Entry], bool]) -> Reapplied:
    """Reapply each correction with `reapply` (`corrector.Corrector.reapply`). Idempotent.

    Raises what boto3 raises; corrections that were reapplied before the error stay.
    """
    result = Reapplied()
    for entry in entries:
        if entry.done is None:
            continue
        try:
            if reapply(entry):
                result.applied += 1
            else:
                result.there += 1
        except NotReadyError:
            result.early += 1
        except UncorrectableError as error:
            result.impossible.append((position_name(entry.request), str(error)))
    return result
