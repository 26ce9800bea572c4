"""A failed record's whole story, for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stream_app.cli.views.failures import said, status
from stream_app.model.segment import instant
from stream_app.recovery.correct.history import Entry
from stream_app.recovery.find.payload import Readable, SchemaVersion, printable
from stream_app.recovery.find.query import cause, handle
from stream_app.recovery.find.stats import stamp
from stream_app.recovery.hydrate.narrow import Judged
from stream_app.recovery.hydrate.results import LetterRecord
from stream_app.recovery.redrive.ledger.items import Attempt
from stream_app.recovery.story import Story

_MOST_LINES = 400


def show(story: Story) -> RenderableType:
    """Who, what, why, the payload, the dead letter, and what was done since."""
    stored = story.stored
    parts: list[RenderableType] = [
        _section(f"failure {handle(story.key)}", _identity(story)),
        _section("why it failed", _why(story)),
        Text(f"payload: {story.payload.form}, {story.payload.size:,} bytes", style="bold"),
        _payload(story.payload),
        _section("dead letter", _letter(story)),
    ]
    if story.letter is not None:
        parts.append(_section("the range that it came from", _range(story.letter)))
    parts.append(_section("correction", _correction(story.correction)))
    parts += _redrives(story, stored.attempts)
    return Group(*parts)


def _section(title: str, rows: Mapping[str, RenderableType | str]) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows.items():
        grid.add_row(f"  {name}", said(value) if isinstance(value, str) else value)
    return Group(Text(title, style="bold"), grid, Text(""))


def _identity(story: Story) -> dict[str, RenderableType | str]:
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


def _why(story: Story) -> dict[str, RenderableType | str]:
    stored = story.stored
    return {
        "stage": stored.stage,
        "code": stored.code,
        "rule or reason": stored.reason,
        "event": stored.event or "not known",
        "schema": _schema(story.schema),
        "fingerprint": cause(stored),
    }


def _schema(found: SchemaVersion | None) -> str:
    if found is None:
        return "none: it failed before it was read by one"
    if found.file is None:
        return f"{found.fingerprint}, of none of the schemas here"
    age = "the current one" if found.current else "a past version"
    return f"{found.fingerprint}, schemas/{found.file} ({age})"


def _payload(payload: Readable) -> RenderableType:
    if payload.value is None and payload.form == "gone":
        return Text("  it had left the stream before it was hydrated\n", style="red")
    lines = payload.value if _is_dump(payload) else _text(payload.value).splitlines()
    shown = [f"  {printable(str(line))}" for line in lines[:_MOST_LINES]]
    if len(lines) > _MOST_LINES:
        shown.append(f"  … {len(lines) - _MOST_LINES:,} lines more: --json shows all")
    return Text("\n".join([*shown, ""]))


def _is_dump(payload: Readable) -> bool:
    return payload.form.endswith(("bytes", "aggregate"))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def _letter(story: Story) -> dict[str, RenderableType | str]:
    letter = story.stored.dead_letter
    return {
        "segment": letter.segment,
        "stage, code": f"{letter.stage}, {letter.code}",
        "reason": letter.reason,
    }


def _range(letter: LetterRecord) -> dict[str, RenderableType | str]:
    guilty, innocent = letter.count(Judged.FAILED), letter.count(Judged.INNOCENT)
    return {
        "from": f"{letter.source} {letter.consumer}: {letter.condition}",
        "range": f"{letter.shard}/{letter.first} to {letter.last}",
        "state": f"{letter.state.value}{f': {letter.reason}' if letter.reason else ''}",
        "records": f"{letter.found:,} of {letter.size:,} found; {guilty:,} failures, {innocent:,} innocent",
    }


def _correction(entry: Entry | None) -> dict[str, RenderableType | str]:
    if entry is None:
        return {"none": ""}
    rows: dict[str, RenderableType | str] = {
        "state": entry.status,
        "asked for by": entry.request.by or "nobody named",
        "asked for at": stamp(instant(entry.at)),
    }
    if entry.done is not None:
        rows["corrected at"] = stamp(instant(entry.done_at)) if entry.done_at is not None else "not known"
        rows["version"] = entry.done.version or "not known"
        rows["before"] = json.dumps(entry.done.before, ensure_ascii=False)
        rows["after"] = json.dumps(entry.done.after, ensure_ascii=False)
    if entry.refusal is not None:
        rows["manual review"] = entry.refusal.reason
    return rows


def _redrives(story: Story, attempts: int) -> Iterator[RenderableType]:
    if not story.redrives:
        said_so = f"none in the ledger, {attempts} by its own count" if attempts else "none"
        yield _section("redrives", {said_so: ""})
        return
    for one in story.redrives:
        yield _section(f"redrive {one.attempt}", _attempt(one))


def _attempt(one: Attempt) -> dict[str, RenderableType | str]:
    told = {
        "state": one.state.value,
        "target": one.target,
        "by": one.by or "nobody named",
        "claimed": stamp(instant(one.claimed_at)) if one.claimed_at else "-",
        "settled": stamp(instant(one.settled_at)) if one.settled_at else "-",
        "plan": one.plan,
        "why": one.why,
    }
    return {name: value for name, value in told.items() if value}
