"""`stream-app failures plan | apply | reconcile | discard`: redrive failures according to a reviewed plan."""

from __future__ import annotations

import getpass
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, get_args

import msgspec
import typer

from stream_app import app as root
from stream_app.cli.failures_options import Consumer
from stream_app.cli.options import Json, Properties, err, parse_choice
from stream_app.cli.views import redrive as view
from stream_app.cli.views.interrupt import until_interrupted
from stream_app.errors import ConfigError, Problem
from stream_app.event_loading import load_registry
from stream_app.model.segment import utc_datetime
from stream_app.recovery.correct.history import history_table
from stream_app.recovery.failure_details import find_failure
from stream_app.recovery.find.query import Query
from stream_app.recovery.redrive.apply.execute import apply as apply_plan
from stream_app.recovery.redrive.apply.run import Applied, Pace
from stream_app.recovery.redrive.apply.send import InDoubt
from stream_app.recovery.redrive.context import RedriveContext, open_target
from stream_app.recovery.redrive.discard import discard as discard_all
from stream_app.recovery.redrive.follow import Followed, attempts_in, attempts_of, follow
from stream_app.recovery.redrive.plan.build import PlanRequest, build_plan
from stream_app.recovery.redrive.plan.file import Newer, Plan, to_text
from stream_app.recovery.redrive.plan.file import read as read_plan
from stream_app.recovery.redrive.select import Selection, parse_selection
from stream_app.recovery.redrive.targets.auth import parse_auth
from stream_app.recovery.redrive.targets.target import destination
from stream_app.recovery.repair.file import read_repair
from stream_app.recovery.store import REDRIVEN

app = typer.Typer(no_args_is_help=True, help="Redrive failures according to a plan, or discard them.")


_POLL_SECONDS = 2.0
_SELECT = (
    "Select failures by since, until, partition, shard, code, status, event, reason, fingerprint, limit or key; may "
    "be repeated. Without a status, only open failures."
)
_SELECT_METAVAR = "NAME=VALUE,…"

Select = Annotated[list[str], typer.Option("--select", metavar=_SELECT_METAVAR, help=_SELECT)]
DryRun = Annotated[bool, typer.Option(help="Check everything and change nothing.")]
PlanFile = Annotated[
    Path, typer.Argument(metavar="PLAN", help="Plan written by `failures plan`.", exists=True)
]


@app.command()
def plan(
    properties: Properties,
    select: Select,
    to: Annotated[
        str, typer.Option(metavar="TARGET", help="Target: bus, stream, or a URL that accepts POST.")
    ],
    repair: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Repair file, JSON or YAML, as described in docs/redrive.md."),
    ] = None,
    newer: Annotated[
        str,
        typer.Option(
            metavar="ACTION",
            help="Action for records that are older than the processed ones of their device: skip, apply, or replay "
            "(apply and send the later records of the device again).",
        ),
    ] = "undecided",
    auth: Annotated[
        str | None,
        typer.Option(
            metavar="HEADER=SOURCE",
            help="HTTP header of a URL target: HEADER=env:NAME or HEADER=secret:NAME#field (Secrets Manager).",
        ),
    ] = None,
    max_redrives: Annotated[
        int, typer.Option(metavar="COUNT", help="Maximum number of times that a record is sent.", min=1)
    ] = 3,
    consumer: Consumer = None,
) -> None:
    """Write a redrive plan to stdout and its summary to stderr; nothing is sent."""
    context = _redrive_context(properties, consumer)
    settings = context.settings
    wish = PlanRequest(
        _selection(context, select),
        destination(to, bus=settings.bus, stream=settings.stream, auth=parse_auth(auth) if auth else None),
        read_repair(repair) if repair else None,
        parse_choice("--newer", newer, get_args(Newer)),
        max_redrives,
    )
    target = open_target(context, wish.destination, None)
    with err.status("reading failures"):
        created = build_plan(context, wish, target)
    target.close()
    err.print(view.show_plan(created))
    sys.stdout.write(to_text(created))


@app.command()
def apply(
    file: PlanFile,
    properties: Properties,
    rate: Annotated[
        str | None, typer.Option(metavar="RATE", help="Maximum number of records per second: 50 or 50/s.")
    ] = None,
    dry_run: DryRun = False,
    in_doubt: Annotated[
        str,
        typer.Option(
            metavar="ACTION",
            help="Action for records that an interrupted run may have sent: resend, hold, or auto (resend if the "
            "receiver recognizes duplicates).",
        ),
    ] = "auto",
    wait: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="Wait up to this time until the pipeline has stored the records.", min=0
        ),
    ] = 0,
    lease: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="Time after which a claim of a process on another host expires.", min=1
        ),
    ] = 30,
    as_json: Json = False,
) -> None:
    """Apply a plan; idempotent, and continues after Ctrl-C or a crash."""
    chosen = read_plan(file)
    context = _redrive_context(properties, chosen.consumer, lease)
    choice = parse_choice("--in-doubt", in_doubt, get_args(InDoubt))
    pace = Pace(rate=_parse_rate(rate), in_doubt=choice)
    target = open_target(context, chosen.destination, None if dry_run else os.environ)
    try:
        with until_interrupted() as stop:
            with view.applying(err, len(chosen.items)) as progress:
                done = apply_plan(
                    context, chosen, target, pace, stop=stop, progress=progress, dry_run=dry_run
                )
            followed = None if dry_run or not wait else _wait_until_stored(context, chosen, wait, stop)
    finally:
        target.close()
    _report(done, followed, dry_run=dry_run, as_json=as_json)


def _report(done: Applied, followed: Followed | None, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        document = view.applied_json(done)
        _print(document if followed is None else {**document, "followed": asdict(followed)})
    else:
        err.print(view.show_applied(done, dry_run=dry_run))
        if followed is not None:
            err.print(view.show_followed(followed))
    if done.stopped:
        raise typer.Exit(130)
    unfollowed = followed is not None and (followed.waiting or followed.failed)
    succeeded = not done.skipped if dry_run else done.complete and not unfollowed
    raise typer.Exit(0 if succeeded else 1)


def _wait_until_stored(
    context: RedriveContext, chosen: Plan, seconds: float, stop: threading.Event
) -> Followed:
    deadline = time.monotonic() + seconds
    while True:
        last = time.monotonic() >= deadline or stop.is_set()
        found = follow(context, attempts_of(context, chosen), thorough=last)
        if last or not found.waiting:
            return found
        stop.wait(_POLL_SECONDS)


@app.command()
def reconcile(
    properties: Properties,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="PLAN", help="Plan to reconcile; all redriven failures if not given.", exists=True
        ),
    ] = None,
    select: Annotated[
        list[str] | None, typer.Option("--select", metavar=_SELECT_METAVAR, help=_SELECT)
    ] = None,
    consumer: Consumer = None,
    as_json: Json = False,
) -> None:
    """Look up the outcome of redriven records, and mark the stored ones as processed."""
    chosen = read_plan(file) if file is not None else None
    context = _redrive_context(properties, consumer if chosen is None else chosen.consumer)
    with err.status("looking up redriven records"):
        if chosen is not None:
            attempts = attempts_of(context, chosen)
        else:
            attempts = attempts_in(context, _selection(context, [*(select or ()), f"status={REDRIVEN}"]))
        done = follow(context, attempts)
    if as_json:
        _print(asdict(done))
    else:
        err.print(view.show_followed(done))
    raise typer.Exit(1 if done.failed else 0)


@app.command()
def discard(
    properties: Properties,
    select: Select,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Reason, which is stored in the history of each failure.")
    ],
    dry_run: DryRun = False,
    consumer: Consumer = None,
    as_json: Json = False,
) -> None:
    """Discard failures: they are not redriven, and the lifecycle rules of the bucket delete them."""
    if not reason.strip():
        raise ConfigError([Problem("--reason is empty", "give the reason why the failures are discarded")])
    context = _redrive_context(properties, consumer)
    with err.status("discarding"):
        done = discard_all(context, _selection(context, select), reason.strip(), dry_run=dry_run)
    if as_json:
        _print(asdict(done))
    else:
        err.print(view.show_discarded(done, dry_run=dry_run))
    raise typer.Exit(1 if done.busy else 0)


def _redrive_context(properties: Path, consumer: str | None, lease: float = 30) -> RedriveContext:
    settings = root.load_settings(os.environ, properties)
    return RedriveContext(
        settings=settings,
        client=root.clients(os.environ, settings.region, attempts=10),
        registry=load_registry(dry_run=False),
        history=history_table(settings.application, os.environ),
        now_ms=lambda: time.time_ns() // 1_000_000,
        by=_user_name(),
        failures_of=consumer or "",
        lease_ms=round(lease * 1000),
        sending=root.clients(os.environ, settings.region, attempts=1),
    )


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # the user of a container may have no name
        return ""


def _selection(context: RedriveContext, texts: list[str]) -> Selection:
    """Parse --select, and look up the key of a failure that is given by id or position. Raises ConfigError."""
    found = parse_selection(texts, utc_datetime(context.now_ms()))
    if found.key is None:
        return found
    return msgspec.structs.replace(
        found, key=find_failure(context.s3, context.bucket, Query(context.consumer), found.key)
    )


def _parse_rate(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        rate = float(text.removesuffix("/s"))
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise ConfigError(
            [Problem(f"invalid --rate {text!r}", "give records per second, such as 50 or 50/s")]
        )
    return rate


def _print(document: Mapping[str, object]) -> None:
    typer.echo(json.dumps(document))
