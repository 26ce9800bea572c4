"""The steps of a pipe that do not depend on its source: filter, input template and target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from botocore.exceptions import ClientError

from stream_app.errors import aws_error_code, is_transient
from stream_app.local.pipes.patterns import Filter, Record, Transform, parse_body
from stream_app.local.pipes.targets import Entry, Target
from stream_app.telemetry import log


@dataclass(frozen=True, slots=True)
class PipeRoute:
    """A pipe without its source. `payload` names the field with a record's body, `body` returns its bytes."""

    name: str
    arn: str
    payload: str
    body: Callable[[Record], bytes]
    matches: Filter
    transform: Transform
    target: Target

    def prepare(self, raw: Record) -> Entry | None:
        """Return the target's entry for a record, or None if no filter matches. Raises UnresolvedParameter."""
        parsed = {**raw, self.payload: parse_body(self.body(raw))}
        if not self.matches(parsed):
            return None
        return self.target.prepare(parsed, self.transform(raw, parsed))

    def send(self, entries: Sequence[Entry]) -> list[int]:
        """Send the entries once, in batches of up to `target.max_batch`. Returns the indexes of those that failed."""
        failed: list[int] = []
        for start in range(0, len(entries), self.target.max_batch):
            part = entries[start : start + self.target.max_batch]
            try:
                failed += [start + index for index in self.target.send(part)]
            except Exception as error:
                if not (is_transient(error) or isinstance(error, ClientError)):
                    raise
                # Only the code or type is logged, because the message may contain record data.
                why = aws_error_code(error) or type(error).__name__
                log.get().warning("target refused a batch", pipe=self.name, records=len(part), code=why)
                failed += range(start, start + len(part))
        return failed
