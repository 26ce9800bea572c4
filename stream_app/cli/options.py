"""Options that several commands share, and where they write to people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from stream_app.errors import ConfigError, Problem

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


def via_of(text: str) -> Any:
    """`text` as --via means it. Raises ConfigError."""
    if text not in ("bus", "stream"):
        raise ConfigError([Problem(f"--via {text!r} is neither bus nor stream", "give one of the two")])
    return text
