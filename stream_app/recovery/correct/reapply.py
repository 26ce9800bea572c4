"""Recorded corrections once more: a replay that wrote rows as they came is made good (DESIGN 4, rule 6)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from stream_app.recovery.correct.calculation.recalculate import ImpossibleError
from stream_app.recovery.correct.history import Entry, name_of
from stream_app.recovery.correct.request import EarlyError


@dataclass(slots=True)
class Reapplied:
    """How many recorded corrections were put back, stood where they belong, or come later; `impossible` says why."""

    applied: int = 0
    there: int = 0
    early: int = 0
    impossible: list[tuple[str, str]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every recorded correction is in its row now."""
        return not self.early and not self.impossible


def reapply_all(entries: Iterable[Entry], again: Callable[[Entry], bool]) -> Reapplied:
    """Put each correction back by `again` (`work.Corrector.again`); safe to repeat.

    Raises what the world raises; what was put back until then stays.
    """
    done = Reapplied()
    for entry in entries:
        if entry.done is None:
            continue
        try:
            if again(entry):
                done.applied += 1
            else:
                done.there += 1
        except EarlyError:
            done.early += 1
        except ImpossibleError as error:
            done.impossible.append((name_of(entry.request), str(error)))
    return done
