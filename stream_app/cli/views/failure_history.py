"""The full history of one failure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stream_app.cli.views.failures import outcomes, safe_text, status
from stream_app.model.segment import utc_datetime
from stream_app.recovery.correct.history_entry import Entry
from stream_app.recovery.failure_details import FailureDetails
from stream_app.recovery.find.payload import Readable, SchemaVersion, printable_text
from stream_app.recovery.find.query import cause, handle
from stream_app.recovery.find.stats import timestamp_text
from stream_app.recovery.hydrate.results import DeadLetterRecord
from stream_app.recovery.redrive.ledger.items import Attempt

_MAX_LINES = 400


def show(story: FailureDetails) -> RenderableType:
    """Render identity, reason, payload, dead letter, correction and redrives of a failure."""
    stored = story.stored
    parts: list[RenderableType] = [
        _section(f"failure {handle(story.key)}", _identity(story)),
        _section("why it failed", _why(story)),
        Text(f"payload: {story.payload.form}, {story.payload.size:,} bytes", style="bold"),
        _payload(story.payload),
        _section("dead letter", _dead_letter(story)),
    ]
    if story.dead_letter is not None:
        parts.append(_section("range of the dead letter", _range(story.dead_letter)))
    parts.append(_section("correction", _correction(story.correction)))
    parts += _redrives(story, stored.attempts)
    return Group(*parts)


def _section(title: str, rows: Mapping[str, RenderableType | str]) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows.items():
        grid.add_row(f"  {name}", safe_text(value) if isinstance(value, str) else value)
    return Group(Text(title, style="bold"), grid, Text(""))


def _identity(story: FailureDetails) -> dict[str, RenderableType | str]:
    stored = story.stored
    return {
        "status": status(story.status),
        "key": story.key,
        "consumer": stored.consumer,
        "stream": stored.stream,
        "position": str(stored.dead_letter.position),
        "device": stored.partition_key,
        "arrived": stored.arrived_at,
    }


def _why(story: FailureDetails) -> dict[str, RenderableType | str]:
    stored = story.stored
    return {
        "stage": stored.stage,
        "code": stored.code,
        "rule or reason": stored.reason,
        "event": stored.event or "unknown",
        "schema": _schema(story.schema),
        "fingerprint": cause(stored),
    }


def _schema(found: SchemaVersion | None) -> str:
    if found is None:
        return "none: the record failed before its schema was known"
    if found.file is None:
        return f"{found.fingerprint}, not among the schemas of this application"
    age = "current version" if found.current else "earlier version"
    return f"{found.fingerprint}, schemas/{found.file} ({age})"


def _payload(payload: Readable) -> RenderableType:
    if payload.value is None and payload.form == "gone":
        return Text("  the record had left the stream before it was hydrated\n", style="red")
    lines = payload.value if _is_dump(payload) else _text(payload.value).splitlines()
    shown = [f"  {printable_text(str(line))}" for line in lines[:_MAX_LINES]]
    if len(lines) > _MAX_LINES:
        shown.append(f"  … {len(lines) - _MAX_LINES:,} more lines: --json shows all")
    return Text("\n".join([*shown, ""]))


def _is_dump(payload: Readable) -> bool:
    return payload.form.endswith(("bytes", "aggregate"))


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def _dead_letter(story: FailureDetails) -> dict[str, RenderableType | str]:
    dead_letter = story.stored.dead_letter
    return {
        "segment": dead_letter.segment,
        "stage, code": f"{dead_letter.stage}, {dead_letter.code}",
        "reason": dead_letter.reason,
    }


def _range(dead_letter: DeadLetterRecord) -> dict[str, RenderableType | str]:
    return {
        "from": f"{dead_letter.source} {dead_letter.consumer}: {dead_letter.condition}",
        "range": f"{dead_letter.shard}/{dead_letter.first} to {dead_letter.last}",
        "state": f"{dead_letter.state.value}{f': {dead_letter.reason}' if dead_letter.reason else ''}",
        "records": f"{dead_letter.found:,} of {dead_letter.size:,} found; {outcomes(dead_letter)}",
    }


def _correction(entry: Entry | None) -> dict[str, RenderableType | str]:
    if entry is None:
        return {"none": ""}
    rows: dict[str, RenderableType | str] = {
        "state": entry.status,
        "requested by": entry.request.by or "unknown",
        "requested at": timestamp_text(utc_datetime(entry.at)),
    }
    if entry.done is not None:
        rows["corrected at"] = (
            timestamp_text(utc_datetime(entry.done_at)) if entry.done_at is not None else "unknown"
        )
        rows["version"] = entry.done.version or "unknown"
        rows["before"] = json.dumps(entry.done.before, ensure_ascii=False)
        rows["after"] = json.dumps(entry.done.after, ensure_ascii=False)
    if entry.refusal is not None:
        rows["manual review"] = entry.refusal.reason
    return rows


def _redrives(story: FailureDetails, attempts: int) -> Iterator[RenderableType]:
    if not story.redrives:
        summary = f"none in the ledger, {attempts} according to the record" if attempts else "none"
        yield _section("redrives", {summary: ""})
        return
    for attempt in story.redrives:
        yield _section(f"redrive {attempt.attempt}", _attempt(attempt))


def _attempt(attempt: Attempt) -> dict[str, RenderableType | str]:
    rows = {
        "state": attempt.state.value,
        "target": attempt.target,
        "by": attempt.by or "unknown",
        "claimed": timestamp_text(utc_datetime(attempt.claimed_at)) if attempt.claimed_at else "-",
        "completed": timestamp_text(utc_datetime(attempt.settled_at)) if attempt.settled_at else "-",
        "plan": attempt.plan,
        "reason": attempt.why,
    }
    return {name: value for name, value in rows.items() if value}
