"""Plans and what became of them, for people: on stderr, since stdout carries the plan itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from stream_app.recovery.redrive.apply.run import Applied
from stream_app.recovery.redrive.discard import Discarded
from stream_app.recovery.redrive.follow import Followed
from stream_app.recovery.redrive.plan.file import STORED, Plan, Sample

_NAMED = 10
_SAMPLES = 3  # the plan holds more
_WIDEST = 60


def show_plan(plan: Plan) -> RenderableType:
    """Count, target, age, expectations, warnings, and a few records before and after."""
    parts: list[RenderableType] = [_facts(plan)]
    parts += [_warning(text) for text in _warnings(plan)]
    parts += [_sample(one) for one in plan.sample[:_SAMPLES]]
    return Group(*parts)


def _facts(plan: Plan) -> Table:
    table = Table.grid(padding=(0, 2))
    to = plan.destination
    rows = {
        "plan": plan.id,
        "to send": f"{plan.sent:,} of {plan.count:,} failures selected, {plan.devices:,} devices"
        + (f", {plan.replayed:,} later records among them" if plan.replayed else ""),
        "to": f"{to.kind} {to.name}" + (f", {to.auth.header} from {to.auth.source}" if to.auth else ""),
        "repair": (plan.repair.name or f"{len(plan.repair.steps)} steps") if plan.repair else "none",
        "arrived": f"{_time(plan.oldest)} to {_time(plan.newest)}, the oldest {_age(plan.age_s)} ago"
        if plan.oldest
        else "-",
        "parked as": _counts(plan.codes),
        "expected now": _counts(plan.expected),
        "left out": _counts(plan.left_out),
    }
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), Text(value))
    return table


def _warnings(plan: Plan) -> Iterator[str]:
    failing = sum(count for outcome, count in plan.expected.items() if outcome != STORED)
    if failing:
        yield f"{failing:,} of them would not be stored: see `expected now` and the samples"
    if not plan.count:
        yield "nothing is selected: that is what is open, unless a status is given; failures ls shows what there is"
    if plan.overtaken_count:
        choice = (
            "choose --newer skip, apply or replay"
            if plan.newer == "undecided"
            else f"{plan.newer} was chosen"
        )
        yield f"{plan.overtaken_count:,} are older than what was processed of their device: {choice}"
        for one in plan.overtaken[:_NAMED]:
            yield f"  {one.device}: processed up to {one.processed}, planned from {one.planned} on"


def _warning(text: str) -> Text:
    return Text(text, style="yellow")


def _sample(one: Sample) -> RenderableType:
    title = Text(f"\n{one.code}, now {one.expected}: {one.because or one.reason}\n{one.key}", style="dim")
    if not isinstance(one.before, Mapping) or not isinstance(one.after, Mapping):
        return title
    table = Table("", "field", "before", "after", box=None)
    for name in dict.fromkeys([*one.before, *one.after]):
        before, after = _cell(one.before, name), _cell(one.after, name)
        # Also told without colours.
        mark, style = ("→", "bold") if before != after else ("", "dim")
        table.add_row(mark, Text(name, style), Text(before, style), Text(after, style))
    return Group(title, table)


def _cell(fields: Mapping[str, Any], name: str) -> str:
    if name not in fields:
        return ""
    text = "null" if fields[name] is None else str(fields[name])
    short = text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"
    return "".join(char if char.isprintable() else " " for char in short)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"


def _time(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}" if at else "-"


def _age(seconds: int | None) -> str:
    for name, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds is not None and seconds >= 2 * size:
            return f"{seconds // size} {name}"
    return f"{seconds or 0} seconds"


@contextmanager
def applying(console: Console, planned: int) -> Iterator[Callable[[Applied], None]]:
    """A function that is told how far an application is, and shows it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="yellow"),
    )
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task("sending", total=planned, note="")

        def progress(done: Applied) -> None:
            note = done.waiting or (f"{done.again:,} tried again" if done.again else "")
            shown.update(task, completed=planned - done.left, note=note)

        yield progress


def show_applied(done: Applied, *, dry_run: bool) -> RenderableType:
    """What was sent and what was not, with reasons."""
    if dry_run:
        head = f"would send {done.left:,} of {done.planned:,}; {done.sent_before:,} were sent before"
    else:
        head = f"sent {done.sent:,} of {done.planned:,}; {done.sent_before:,} were sent before"
    counts = {
        "refused by the target": done.refused,
        "held in doubt": done.held,
        "changed since the plan": done.skipped,
        "of another plan": done.elsewhere,
        "not delivered, tries spent": done.undelivered,
        "left": 0 if dry_run else done.left,
    }
    style = "bold green" if done.complete or (dry_run and not done.skipped) else "bold yellow"
    lines = [Text(head, style=style)]
    lines += [Text(f"{count:,} {name}", style="yellow") for name, count in counts.items() if count]
    if done.halted:
        lines.append(Text(f"the target takes nothing more: {done.halted}", style="bold red"))
    lines += [Text(f"  {key}: {why}", style="dim") for key, why in done.named[:_NAMED]]
    if done.held:
        lines.append(
            Text("what is held may have arrived: ask the receiver, then plan it again or discard it")
        )
    if done.left and not dry_run:
        lines.append(Text("apply the same plan again to go on"))
    return Group(*lines)


def applied_json(done: Applied) -> dict[str, Any]:
    """Built-in types."""
    names = (
        "planned",
        "sent",
        "sent_before",
        "refused",
        "held",
        "skipped",
        "elsewhere",
        "undelivered",
        "again",
    )
    counts = {name: getattr(done, name) for name in (*names, "left", "stopped", "halted", "complete")}
    return {**counts, "named": [{"key": key, "why": why} for key, why in done.named]}


def show_followed(done: Followed) -> RenderableType:
    """What the pipeline made of what was sent."""
    counts = {
        "processed": done.processed,
        "failed again": done.failed,
        "on their way": done.waiting,
        "with an endpoint": done.delivered,
        "refused, held or discarded": done.other,
    }
    return Text(_counts({name: count for name, count in counts.items() if count}))


def show_discarded(done: Discarded, *, dry_run: bool) -> RenderableType:
    """How many, and which could not be."""
    lines = [Text(f"{'would discard' if dry_run else 'discarded'} {done.count:,}", style="bold")]
    if not done.count and not done.busy:
        lines.append(Text("nothing is selected: that is what is open, unless a status is given"))
    lines += [Text(f"is being sent, and was left: {key}", style="yellow") for key in done.busy[:_NAMED]]
    return Group(*lines)
