"""Redrive plans and their results, printed to stderr because stdout carries the plan itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from stream_app.recovery.redrive.apply.run import Applied
from stream_app.recovery.redrive.discard import Discarded
from stream_app.recovery.redrive.follow import Followed
from stream_app.recovery.redrive.plan.file import STORED, Plan, Sample

_MAX_SHOWN = 10
_MAX_SAMPLES = 3  # the plan contains more
_MAX_WIDTH = 60


def show_plan(plan: Plan) -> RenderableType:
    """Render count, target, age, predicted outcomes, warnings, and a few records before and after the repair."""
    parts: list[RenderableType] = [_summary(plan)]
    parts += [_warning(text) for text in _warnings(plan)]
    parts += [_sample(sample) for sample in plan.sample[:_MAX_SAMPLES]]
    return Group(*parts)


def _summary(plan: Plan) -> Table:
    table = Table.grid(padding=(0, 2))
    to = plan.destination
    rows = {
        "plan": plan.id,
        "to send": f"{plan.sent:,} of {plan.count:,} selected failures, {plan.devices:,} devices"
        + (f", including {plan.replayed:,} later records" if plan.replayed else ""),
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
        yield f"{failing:,} would not be stored: see `expected now` and the samples"
    if not plan.count:
        yield "no failures are selected (without a status, only open ones): see failures ls"
    if plan.overtaken_count:
        choice = (
            "choose --newer skip, apply or replay"
            if plan.newer == "undecided"
            else f"{plan.newer} was chosen"
        )
        yield f"{plan.overtaken_count:,} are older than the processed records of their device: {choice}"
        for one in plan.overtaken[:_MAX_SHOWN]:
            yield f"  {one.device}: processed up to {one.processed}, planned from {one.planned}"


def _warning(text: str) -> Text:
    return Text(text, style="yellow")


def _sample(sample: Sample) -> RenderableType:
    heading = f"\n{sample.code}, now {sample.expected}: {sample.because or sample.reason}\n{sample.key}"
    title = Text(heading, style="dim")
    if not isinstance(sample.before, Mapping) or not isinstance(sample.after, Mapping):
        return title
    table = Table("", "field", "before", "after", box=None)
    for name in dict.fromkeys([*sample.before, *sample.after]):
        before, after = _cell(sample.before, name), _cell(sample.after, name)
        # The arrow marks a change where the terminal shows no styles.
        mark, style = ("→", "bold") if before != after else ("", "dim")
        table.add_row(mark, Text(name, style), Text(before, style), Text(after, style))
    return Group(title, table)


def _cell(fields: Mapping[str, object], name: str) -> str:
    if name not in fields:
        return ""
    text = "null" if fields[name] is None else str(fields[name])
    short = text if len(text) <= _MAX_WIDTH else text[: _MAX_WIDTH - 1] + "…"
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
    """Yield a function that shows the progress of applying a plan."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="yellow"),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("sending", total=planned, note="")

        def progress(done: Applied) -> None:
            note = done.waiting or (f"{done.again:,} retried" if done.again else "")
            bars.update(task, completed=planned - done.left, note=note)

        yield progress


def show_applied(done: Applied, *, dry_run: bool) -> RenderableType:
    """Render how many records were sent, and why others were not."""
    if dry_run:
        head = f"would send {done.left:,} of {done.planned:,}; {done.sent_before:,} were sent before"
    else:
        head = f"sent {done.sent:,} of {done.planned:,}; {done.sent_before:,} were sent before"
    counts = {
        "rejected by the target": done.refused,
        "held because they may have been sent already": done.held,
        "changed since the plan was made": done.skipped,
        "claimed by another plan": done.elsewhere,
        "not delivered after all retries": done.undelivered,
        "left": 0 if dry_run else done.left,
    }
    style = "bold green" if done.complete or (dry_run and not done.skipped) else "bold yellow"
    lines = [Text(head, style=style)]
    lines += [Text(f"{count:,} {name}", style="yellow") for name, count in counts.items() if count]
    if done.halted:
        lines.append(Text(f"the target accepts no more records: {done.halted}", style="bold red"))
    lines += [Text(f"  {key}: {why}", style="dim") for key, why in done.named[:_MAX_SHOWN]]
    if done.held:
        lines.append(Text("held records may have arrived: check the receiver, then plan again or discard"))
    if done.left and not dry_run:
        lines.append(Text("apply the same plan again to continue"))
    return Group(*lines)


def applied_json(done: Applied) -> dict[str, object]:
    """Return the result as a JSON document."""
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
    """Render the outcomes of redriven records."""
    counts = {
        "processed": done.processed,
        "failed again": done.failed,
        "not processed yet": done.waiting,
        "delivered to an endpoint": done.delivered,
        "rejected, held or discarded": done.other,
    }
    return Text(_counts({name: count for name, count in counts.items() if count}))


def show_discarded(done: Discarded, *, dry_run: bool) -> RenderableType:
    """Render how many failures were discarded, and which were skipped because they are being sent."""
    lines = [Text(f"{'would discard' if dry_run else 'discarded'} {done.count:,}", style="bold")]
    if not done.count and not done.busy:
        lines.append(Text("no failures are selected (without a status, only open ones)"))
    lines += [Text(f"skipped, being sent: {key}", style="yellow") for key in done.busy[:_MAX_SHOWN]]
    return Group(*lines)
