"""The `stream-app` command: assembles the subcommands and maps errors to exit codes."""

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
    help="Run and operate a Kinesis application that accounts for every accepted record exactly once.",
)
app.command()(run)
app.command()(operate.audit)
app.command()(operate.daemon)
app.command()(cost.cost)
app.add_typer(local.app, name="local")
app.add_typer(devices.app, name="devices")
failures.app.add_typer(redrive.app)  # without a name: plan, apply … are siblings of ls, show and stats
app.add_typer(failures.app, name="failures")
app.add_typer(corrections.app, name="corrections")
app.add_typer(quarantine.app, name="quarantine")


def main() -> None:
    """Run the command line.

    Exit codes: 0 success, 1 failure or an audit that does not balance, 2 invalid configuration or usage,
    130 interrupted.
    """
    try:
        app()
    except ConfigError as error:
        for problem in error.problems:
            _print_error(problem.what, problem.hint)
        sys.exit(2)
    except StreamAppError as error:
        _print_error(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        explained = explain(error)
        if explained is None:
            raise
        _print_error(explained.what, explained.hint)
        sys.exit(1)


def _print_error(what: str, hint: str = "") -> None:
    lines = f"[red]error:[/red] {escape(what)}" + (f"\n  hint: {escape(hint)}" if hint else "")
    err.print(lines, highlight=False)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"stream-app {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Show the version or run a command."""


if __name__ == "__main__":
    main()
