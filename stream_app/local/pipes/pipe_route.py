"""The way of one record through a pipe, whatever its source: filter, transform, target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from stream_app.errors import code_of, is_transient
from stream_app.local.pipes.patterns import Filter, Record, Transform, parsed
from stream_app.local.pipes.targets import Target
from stream_app.telemetry import log


@dataclass(frozen=True, slots=True)
class PipeRoute:
    """A pipe without its source. `payload` names the field that holds a record's body, `body` reads it."""

    name: str
    arn: str
    payload: str
    body: Callable[[Record], bytes]
    matches: Filter
    transform: Transform
    target: Target

    def take(self, raw: Record) -> Any | None:
        """What is to be sent for a record; None when no filter lets it through. Raises Unresolved."""
        seen = {**raw, self.payload: parsed(self.body(raw))}
        if not self.matches(seen):
            return None
        return self.target.prepare(seen, self.transform(raw, seen))

    def send(self, entries: Sequence[Any]) -> list[int]:
        """Send once, in batches of the target's size; the indexes of what was not taken, for whatever reason."""
        failed: list[int] = []
        for start in range(0, len(entries), self.target.most):
            part = entries[start : start + self.target.most]
            try:
                failed += [start + place for place in self.target.send(part)]
            except Exception as error:
                if not (is_transient(error) or isinstance(error, ClientError)):
                    raise
                # Its code or type only: the text may hold a payload.
                why = code_of(error) or type(error).__name__
                log.get().warning("target refused a batch", pipe=self.name, records=len(part), code=why)
                failed += range(start, start + len(part))
        return failed
