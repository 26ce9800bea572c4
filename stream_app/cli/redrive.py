"""`stream-app failures plan | apply | reconcile | discard`: failures are sent again by a reviewed plan."""

from __future__ import annotations

import getpass
import json
import os
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, get_args

import msgspec
import typer

from stream_app import app as root
from stream_app.cli.failures_options import Consumer
from stream_app.cli.options import Json, Properties, err
from stream_app.cli.views import redrive as shown
from stream_app.cli.views.interrupt import until_interrupted
from stream_app.errors import ConfigError, Problem
from stream_app.event_loading import load_registry
from stream_app.model.segment import instant
from stream_app.recovery.correct.history import table_of
from stream_app.recovery.find.query import Query
from stream_app.recovery.redrive.apply.execute import apply as apply_plan
from stream_app.recovery.redrive.apply.run import Applied, Pace
from stream_app.recovery.redrive.apply.send import InDoubt
from stream_app.recovery.redrive.context import RedriveContext, open_target
from stream_app.recovery.redrive.discard import discard as discard_all
from stream_app.recovery.redrive.follow import Followed, attempts_in, attempts_of, follow
from stream_app.recovery.redrive.plan.file import Newer, Plan, to_text
from stream_app.recovery.redrive.plan.file import read as read_plan
from stream_app.recovery.redrive.plan.make import Wish, make
from stream_app.recovery.redrive.select import Selection, parse_selection
from stream_app.recovery.redrive.targets.auth import parse_auth
from stream_app.recovery.redrive.targets.target import destination
from stream_app.recovery.repair.file import read_repair
from stream_app.recovery.store import REDRIVEN
from stream_app.recovery.story import locate

app = typer.Typer(no_args_is_help=True, help="Send failures again, by a plan, or give them up.")

_POLL = 2.0  # seconds between looks at what the pipeline has stored
_SELECT = (
    "name=value[,name=value…]: since, until, partition, shard, code, status, event, reason, fingerprint, limit, key. "
    "May be given several times. What is open, unless a status is given."
)

Select = Annotated[list[str], typer.Option("--select", help=_SELECT)]
DryRun = Annotated[bool, typer.Option(help="Look at everything, change nothing.")]
PlanFile = Annotated[Path, typer.Argument(help="A plan, as `failures plan` wrote it.", exists=True)]


@app.command()
def plan(
    properties: Properties,
    select: Select,
    to: Annotated[str, typer.Option(help="bus, stream, or a URL that takes POST.")],
    repair: Annotated[
        Path | None,
        typer.Option(help="Conditions (when) and steps, JSON or YAML: docs/redrive.md has the form."),
    ] = None,
    newer: Annotated[
        str,
        typer.Option(
            help="Of records that are older than what was processed of their device: skip them, apply them, or "
            "replay the device's later records behind them."
        ),
    ] = "undecided",
    auth: Annotated[
        str | None,
        typer.Option(help="A URL's header: HEADER=env:NAME, or HEADER=secret:NAME#field (Secrets Manager)."),
    ] = None,
    max_redrives: Annotated[int, typer.Option(help="How often a record may be sent in all.", min=1)] = 3,
    consumer: Consumer = None,
) -> None:
    """Plan what to send again: writes the plan to stdout, and what it means to stderr. Sends nothing."""
    context = _redrive_context(properties, consumer)
    settings = context.settings
    wish = Wish(
        _selection(context, select),
        destination(to, bus=settings.bus, stream=settings.stream, auth=parse_auth(auth) if auth else None),
        read_repair(repair) if repair else None,
        _choice("--newer", newer, Newer),
        max_redrives,
    )
    target = open_target(context, wish.destination, None)
    with err.status("reading failures"):
        made = make(context, wish, target)
    target.close()
    err.print(shown.show_plan(made))
    sys.stdout.write(to_text(made))


@app.command()
def apply(
    file: PlanFile,
    properties: Properties,
    rate: Annotated[str | None, typer.Option(help="Records a second at the most: 50, or 50/s.")] = None,
    dry_run: DryRun = False,
    in_doubt: Annotated[
        str,
        typer.Option(
            help="Records that an applier may have sent before it died: resend, hold, or auto, which sends again "
            "where the receiver can tell a second copy."
        ),
    ] = "auto",
    wait: Annotated[
        float, typer.Option(help="Then wait up to so many seconds until the pipeline has stored them.", min=0)
    ] = 0,
    lease: Annotated[
        float, typer.Option(help="Seconds that a claim outlives who died over it on another machine.", min=1)
    ] = 30,
    as_json: Json = False,
) -> None:
    """Carry a plan out. Safe to repeat: after Ctrl-C or a crash it goes on where it was."""
    chosen = read_plan(file)
    context = _redrive_context(properties, chosen.consumer, lease)
    pace = Pace(rate=_rate(rate), in_doubt=_choice("--in-doubt", in_doubt, InDoubt))
    target = open_target(context, chosen.destination, None if dry_run else os.environ)
    try:
        with until_interrupted() as stop:
            with shown.applying(err, len(chosen.items)) as progress:
                done = apply_plan(
                    context, chosen, target, pace, stop=stop, progress=progress, dry_run=dry_run
                )
            followed = None if dry_run or not wait else _wait(context, chosen, wait, stop)
    finally:
        target.close()
    _tell(done, followed, dry_run=dry_run, as_json=as_json)


def _tell(done: Applied, followed: Followed | None, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        document = shown.applied_json(done)
        _print(document if followed is None else {**document, "followed": asdict(followed)})
    else:
        err.print(shown.show_applied(done, dry_run=dry_run))
        if followed is not None:
            err.print(shown.show_followed(followed))
    if done.stopped:
        raise typer.Exit(130)
    unfollowed = followed is not None and (followed.waiting or followed.failed)
    good = not done.skipped if dry_run else done.complete and not unfollowed
    raise typer.Exit(0 if good else 1)


def _wait(context: RedriveContext, chosen: Plan, seconds: float, stop: threading.Event) -> Followed:
    until = time.monotonic() + seconds
    while True:
        last = time.monotonic() >= until or stop.is_set()
        found = follow(context, attempts_of(context, chosen), thorough=last)
        if last or not found.waiting:
            return found
        stop.wait(_POLL)


@app.command()
def reconcile(
    properties: Properties,
    file: Annotated[
        Path | None, typer.Argument(help="A plan; all that is redriven without one.", exists=True)
    ] = None,
    select: Annotated[list[str] | None, typer.Option("--select", help=_SELECT)] = None,
    consumer: Consumer = None,
    as_json: Json = False,
) -> None:
    """Find out what the pipeline made of records that were sent again, and mark them processed."""
    chosen = read_plan(file) if file is not None else None
    context = _redrive_context(properties, consumer if chosen is None else chosen.consumer)
    with err.status("looking for what was sent"):
        if chosen is not None:
            attempts = attempts_of(context, chosen)
        else:
            attempts = attempts_in(context, _selection(context, [*(select or ()), f"status={REDRIVEN}"]))
        done = follow(context, attempts)
    if as_json:
        _print(asdict(done))
    else:
        err.print(shown.show_followed(done))
    raise typer.Exit(1 if done.failed else 0)


@app.command()
def discard(
    properties: Properties,
    select: Select,
    reason: Annotated[str, typer.Option(help="Why; it is kept with the record's story.")],
    dry_run: DryRun = False,
    consumer: Consumer = None,
    as_json: Json = False,
) -> None:
    """Give failures up: nobody sends them any more, and the bucket's rules remove them in time."""
    if not reason.strip():
        raise ConfigError([Problem("--reason is empty", "say why: somebody will ask")])
    context = _redrive_context(properties, consumer)
    with err.status("discarding"):
        done = discard_all(context, _selection(context, select), reason.strip(), dry_run=dry_run)
    if as_json:
        _print(asdict(done))
    else:
        err.print(shown.show_discarded(done, dry_run=dry_run))
    raise typer.Exit(1 if done.busy else 0)


def _redrive_context(properties: Path, consumer: str | None, lease: float = 30) -> RedriveContext:
    settings = root.load_settings(os.environ, properties)
    return RedriveContext(
        settings=settings,
        client=root.clients(os.environ, settings.region, attempts=10),
        registry=load_registry(dry_run=False),
        history=table_of(settings.application, os.environ),
        now_ms=lambda: time.time_ns() // 1_000_000,
        by=_person(),
        failures_of=consumer or "",
        lease_ms=round(lease * 1000),
        sending=root.clients(os.environ, settings.region, attempts=1),
    )


def _person() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return ""


def _selection(context: RedriveContext, texts: list[str]) -> Selection:
    """What --select says; a failure named by its id or position is looked for. Raises ConfigError."""
    found = parse_selection(texts, instant(context.now_ms()))
    if found.key is None:
        return found
    return msgspec.structs.replace(
        found, key=locate(context.s3, context.bucket, Query(context.consumer), found.key)
    )


def _choice(option: str, text: str, choices: Any) -> Any:
    known = [name for name in get_args(choices) if name != "undecided"]
    if text not in get_args(choices):
        raise ConfigError([Problem(f"{option} {text!r} is none", f"give one of {', '.join(known)}")])
    return text


def _rate(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        rate = float(text.removesuffix("/s"))
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise ConfigError(
            [Problem(f"--rate {text!r} is no rate", "give records a second, such as 50 or 50/s")]
        )
    return rate


def _print(document: Any) -> None:
    typer.echo(json.dumps(document))
