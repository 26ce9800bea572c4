"""The `stream-app` command: composes the parts, shows progress, and turns errors into exit codes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.markup import escape

from stream_app import __version__
from stream_app.cli import corrections, cost, devices, failures, local, operate, quarantine, redrive
from stream_app.cli.options import err
from stream_app.cli.run import run
from stream_app.errors import ConfigError, StreamAppError, explain

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A Kinesis application in which every accepted record is accounted for exactly once.",
)
app.command()(run)
app.command()(operate.audit)
app.command()(operate.daemon)
app.command()(cost.cost)
app.add_typer(local.app, name="local")
app.add_typer(devices.app, name="devices")
failures.app.add_typer(redrive.app)  # without a name: plan, apply … stand beside ls, show, stats
app.add_typer(failures.app, name="failures")
app.add_typer(corrections.app, name="corrections")
app.add_typer(quarantine.app, name="quarantine")


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


if __name__ == "__main__":
    main()
