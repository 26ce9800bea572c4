"""Options that several commands share, and the console for diagnostics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, get_args

import typer
from rich.console import Console

from stream_app.errors import ConfigError, Problem

if TYPE_CHECKING:
    from stream_app.ingest.publish_options import Via

C = TypeVar("C", bound=str)

err = Console(stderr=True)

Properties = Annotated[
    Path,
    typer.Option("--properties", metavar="FILE", help="Properties file of the application.", exists=True),
]
Json = Annotated[bool, typer.Option("--json", help="Write one JSON object to stdout and progress to stderr.")]
Application = Annotated[
    str, typer.Option(metavar="NAME", help="Name of the KCL application, its tables and its consumer.")
]
Folder = Annotated[
    Path, typer.Option(metavar="FOLDER", help="Folder for logs and, with local up, local.properties.")
]
ShardCount = Annotated[
    int, typer.Option(metavar="COUNT", help="Number of shards of the stream.", min=1, max=64)
]
Faults = Annotated[bool, typer.Option(help="Mix seeded invalid input into the data.")]
PositionText = Annotated[
    str, typer.Argument(metavar="POSITION", help="SHARD/SEQUENCE or SHARD/SEQUENCE.SUB, as shown by ls.")
]


@dataclass(frozen=True, slots=True)
class Playback:
    """Which data set to play, how fast, and over which route."""

    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA", help="Name of a bundled data set, or a Parquet, CSV or JSON Lines file."
        ),
    ] = "beijing-winter"
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="RATE", help="Records per second; for `run`, 200 if --speed is not given.", min=0.1
        ),
    ] = None
    speed: Annotated[
        str | None, typer.Option(metavar="FACTOR", help="Ratio of data time to real time, or max.")
    ] = None
    via: Annotated[
        str, typer.Option(metavar="ROUTE", help="Route: bus (PutEvents) or stream (PutRecords).")
    ] = "bus"
    seed: Annotated[int | None, typer.Option(metavar="NUMBER", help="Seed of the invalid input.")] = None
    first: Annotated[
        int | None, typer.Option(metavar="COUNT", help="Play only the first COUNT readings.", min=1)
    ] = None
    event: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Event type, if it cannot be derived from the data."),
    ] = None


def parse_choice(option: str, text: str, choices: Sequence[C]) -> C:
    """Return the choice that equals `text`. Raises ConfigError."""
    for choice in choices:
        if choice == text:
            return choice
    known = [name for name in choices if name != "undecided"]
    raise ConfigError([Problem(f"unknown {option} {text!r}", f"give one of {', '.join(known)}")])


def parse_via(text: str) -> Via:
    """Parse the value of --via. Raises ConfigError."""
    from stream_app.ingest.publish_options import Via

    return parse_choice("--via", text, get_args(Via))
