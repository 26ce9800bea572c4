"""The `stream-app` command: composes the parts, shows progress, and turns errors into exit codes."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from stream_app import __version__
from stream_app.errors import ConfigError, Problem, StreamAppError, explain

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A Kinesis application in which every accepted record is accounted for exactly once.",
)
local_app = typer.Typer(no_args_is_help=True, help="The embedded AWS.")
devices_app = typer.Typer(no_args_is_help=True, help="Devices that send data sets.")
app.add_typer(local_app, name="local")
app.add_typer(devices_app, name="devices")
err = Console(stderr=True)

Properties = Annotated[Path, typer.Option("--properties", help="The .properties file.", exists=True)]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout; progress goes to stderr.")]
Application = Annotated[
    str, typer.Option(help="The application's name: of KCL, its tables and its consumer.")
]
Data = Annotated[
    str, typer.Argument(help="A bundled data set by name, or a Parquet, CSV or JSON-lines file.")
]
Rate = Annotated[float | None, typer.Option(help="Records a second.", min=0.1)]
Speed = Annotated[str, typer.Option(help="Data time over real time, or max.")]
Via = Annotated[str, typer.Option(help="bus (PutEvents) or stream (PutRecords).")]
Seed = Annotated[int | None, typer.Option(help="Seeds the bad input that is mixed in.")]
Faults = Annotated[bool, typer.Option(help="Mix seeded bad input into the data.")]
First = Annotated[int | None, typer.Option(help="Play that many readings only.", min=1)]
EventName = Annotated[
    str | None, typer.Option("--event", help="The event type, where the data do not tell it.")
]


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 failed or not balanced, 2 wrong configuration or usage, 130 interrupted."""
    try:
        app()
    except ConfigError as error:
        for problem in error.problems:
            _say(problem.what, problem.hint)
        sys.exit(2)
    except StreamAppError as error:
        _say(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        told = explain(error)
        if told is None:
            raise
        _say(told.what, told.hint)
        sys.exit(1)


def _say(what: str, hint: str = "") -> None:
    lines = f"[red]error:[/red] {escape(what)}" + (f"\n  hint: {escape(hint)}" if hint else "")
    err.print(lines, highlight=False)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"stream-app {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Show the version, or run a command."""


@app.command()
def run(
    data: Data = "beijing-winter",
    shards: Annotated[int, typer.Option(help="Shards of the stream.", min=1, max=64)] = 4,
    rate: Rate = None,
    speed: Speed = "",
    via: Via = "bus",
    seed: Seed = None,
    faults: Faults = True,
    first: First = None,
    event: EventName = None,
    segment_seconds: Annotated[int, typer.Option(help="Length of a segment.", min=1)] = 5,
    rehearse: Annotated[str, typer.Option(help="Crashes and reshards: kill@3000,split@5000,merge@7000")] = "",
    folder: Annotated[Path, typer.Option(help="Where logs go.")] = Path(".stream-app"),
    as_json: Json = False,
) -> None:
    """Run it all on this machine: embedded AWS, devices, the KCL consumer; ends when all is accounted for."""
    from stream_app import app as root
    from stream_app.ingest.faults import SEED
    from stream_app.ingest.pacing import parse_speed
    from stream_app.local import rehearsal
    from stream_app.local.run import Options, Stage
    from stream_app.local.run import run as run_all
    from stream_app.terminal.live import live
    from stream_app.terminal.summary import render

    options = Options(
        data=data,
        shards=shards,
        rate=rate if rate or speed else DEFAULT_RATE,
        speed=parse_speed(speed or "max"),
        via=_via(via),
        seed=SEED if seed is None else seed,
        faults=faults,
        first=first,
        event=event,
        segment_seconds=segment_seconds,
        acts=tuple(rehearsal.parse(rehearse)),
        folder=folder.resolve(),
    )
    stage = Stage()
    with _until_interrupted() as stop:
        with live(err, stage):
            report = run_all(options, root.clients, stage, stop)
        report = replace(report, interrupted=report.interrupted or stop.is_set())
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        Console().print(render(report))
    if report.interrupted:
        raise typer.Exit(130)
    raise typer.Exit(0 if report.balanced else 1)


DEFAULT_RATE = 200.0


def _via(text: str) -> Any:
    if text not in ("bus", "stream"):
        raise ConfigError([Problem(f"--via {text!r} is neither bus nor stream", "give one of the two")])
    return text


@contextmanager
def _until_interrupted() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; the second one ends the program at once."""
    stop = threading.Event()

    def ask(_number: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@app.command()
def audit(
    properties: Properties,
    limit: Annotated[int, typer.Option(help="Positions to name of each kind.", min=0)] = 20,
    as_json: Json = False,
) -> None:
    """Compare what the stream holds with what is stored and parked; exit code 1 when it does not balance."""
    from stream_app import app as root
    from stream_app.terminal.audit import checked, show

    settings = root.load_settings(os.environ, properties)
    found = checked(settings, root.clients(os.environ, settings.region, attempts=10), err)
    if as_json:
        typer.echo(found.to_json().decode())
    else:
        Console().print(show(found, limit))
    raise typer.Exit(0 if found.balanced else 1)


@app.command()
def daemon(
    properties: Properties,
    start: Annotated[
        str | None, typer.Option("--from", help="Start a new application there: 2026-01-31T00:00:00Z")
    ] = None,
    debug: Annotated[bool, typer.Option(help="KCL's own messages too.")] = False,
) -> None:
    """Start the KCL daemon and own it: forwards signals, restarts after crashes, logs JSON lines to stderr."""
    from stream_app import app as root
    from stream_app.consumer.daemon import run_daemon
    from stream_app.consumer.daemon_log import json_lines
    from stream_app.consumer.starting_point import parse_timestamp, refuse_leases, starting_at
    from stream_app.consumer.supervise import Stop

    settings = root.load_settings(os.environ, properties)
    client = root.clients(os.environ, settings.region)
    root.check(settings, client)
    overrides: dict[str, str | None] = {}
    if start is not None:
        seconds = parse_timestamp(start, time.time())
        refuse_leases(client("dynamodb"), settings.application)
        overrides |= starting_at(seconds)
    stop = Stop()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.request())
    code = run_daemon(
        properties,
        environ=os.environ,
        overrides=overrides,
        on_line=json_lines(sys.stderr.buffer, "DEBUG" if debug else settings.log_level),
        stop=stop,
        debug=debug,
        before=lambda worker: _give_back(client, settings.application, worker),
    )
    raise typer.Exit(code)


def _give_back(client: Callable[[str], Any], application: str, worker: str) -> None:
    """The leader lock of a daemon that died here; without the permission KCL only takes longer."""
    from stream_app.consumer.leadership import release

    try:
        release(client("dynamodb"), application, worker)
    except Exception as error:
        err.print(f"the leader lock was not looked at: {escape(str(error))}", highlight=False)


@local_app.command()
def up(
    application: Application = "stream-app",
    shards: Annotated[int, typer.Option(help="Shards of the stream.", min=1, max=64)] = 4,
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 0,
    folder: Annotated[Path, typer.Option(help="Where logs and local.properties go.")] = Path(".stream-app"),
) -> None:
    """Start the embedded AWS with the template's resources, pipes and functions; Ctrl-C stops it."""
    from stream_app import app as root
    from stream_app.local.embedded import embedded, usage, write_properties

    with (
        _until_interrupted() as stop,
        embedded(
            root.clients,
            application=application,
            shards=shards,
            folder=folder.resolve(),
            port=port,
            note=err.print,
        ) as aws,
    ):
        file = write_properties(aws, folder.resolve())
        Console().print(usage(aws, file), highlight=False, soft_wrap=True)
        stop.wait()


@local_app.command(hidden=True)
def runners(application: Application = "stream-app") -> None:
    """Run the template's pipes and functions until it is told to stop."""
    from stream_app import app as root
    from stream_app.local.deploy import templates
    from stream_app.local.runners import serve
    from stream_app.telemetry import log

    log.configure()
    serve(root.clients(os.environ), templates(), application, sys.stdout)


@devices_app.command()
def play(
    data: Data = "beijing-winter",
    bus: Annotated[str, typer.Option(help="The event bus.")] = "stream-app",
    stream: Annotated[
        str, typer.Option(help="The stream, for what cannot travel over the bus.")
    ] = "stream-app-events",
    rate: Rate = None,
    speed: Speed = "max",
    via: Via = "bus",
    seed: Seed = None,
    faults: Faults = False,
    first: First = None,
    event: EventName = None,
    as_json: Json = False,
) -> None:
    """Publish a data set as its devices would, with the endpoint and credentials of the environment."""
    from stream_app import app as root
    from stream_app.ingest import devices
    from stream_app.ingest.faults import SEED
    from stream_app.ingest.pacing import parse_speed
    from stream_app.terminal.sent import as_table, progressing, to_json

    client = root.clients(os.environ)
    with _until_interrupted() as stop, progressing(err) as progress:
        sent = devices.play(
            data,
            events_client=client("events"),
            kinesis_client=client("kinesis"),
            bus=bus,
            stream=stream,
            rate=rate,
            speed=parse_speed(speed),
            via=_via(via),
            seed=SEED if seed is None else seed,
            faults=faults,
            first=first,
            event=event,
            progress=progress,
            stop=stop,
        )
    if as_json:
        typer.echo(json.dumps(to_json(sent)))
    else:
        Console().print(as_table(sent))
    raise typer.Exit(130 if sent.stopped else 0)


if __name__ == "__main__":
    main()
