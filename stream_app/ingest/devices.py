"""Devices that play a data set onto the bus, bad input included."""

from __future__ import annotations

import itertools
import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stream_app.aws.retry import Policy
from stream_app.errors import ConfigError, Problem
from stream_app.event_loading import discover, schema_files
from stream_app.ingest.datasets import Dataset, dataset
from stream_app.ingest.envelope import Encode, Sending, forms
from stream_app.ingest.faults import LIMIT, RATES, SEED, plan
from stream_app.ingest.producer import Clocks, Sent, Via, publish
from stream_app.model.event import Event


def play(
    file: str | Path | Dataset,
    *,
    events_client: Any,
    kinesis_client: Any,
    bus: str,
    stream: str,
    rate: float | None = None,
    speed: float = math.inf,
    via: Via = "bus",
    seed: int = SEED,
    faults: bool = True,
    event: str | None = None,
    declared: Mapping[str, Event] | None = None,
    first: int | None = None,
    limit: int = LIMIT,
    threads: int = 2,
    retry: Policy | None = None,
    region: str = "us-east-1",
    progress: Callable[[int], None] | None = None,
    stop: threading.Event | None = None,
    dependencies: Clocks | None = None,
) -> Sent:
    """Play a data set: a name of `datasets.NAMES`, a file, a folder, or what `dataset` made of one.

    `rate` is in records a second, `speed` data time over real time, `first` plays that many readings only.
    `faults` adds the seeded mix of `faults.RATES`; without it every reading goes as it is, by the bus (or by the
    stream, `via`). `limit` is the application's `max_record_bytes`. `event` names the event type where the data
    does not tell it; `declared` are the event types, by default those that `discover` finds.

    Raises ConfigError, before anything is sent, for data that cannot be played; FatalError as `publish` does.
    """
    data = file if isinstance(file, Dataset) else dataset(file)
    its_event = event_of(data, discover() if declared is None else declared, event)
    written = written_forms(its_event) if faults else {}
    sendings = sendings_of(data, its_event, written, seed=seed, faults=faults, first=first, limit=limit)
    return publish(
        sendings,
        events_client,
        kinesis_client,
        bus,
        stream,
        via=via,
        rate=rate,
        speed=speed,
        forms=written,
        threads=threads,
        retry=retry,
        region=region,
        progress=progress,
        stop=stop,
        dependencies=dependencies,
    )


def sendings_of(
    data: Dataset,
    event: Event,
    written: Mapping[str, Encode],
    *,
    seed: int = SEED,
    faults: bool = True,
    first: int | None = None,
    limit: int = LIMIT,
) -> Iterator[Sending]:
    """The plan that `play` sends; `faults.expected` of it says beforehand what the application should report."""
    readings = itertools.islice(data.rows(), first)
    return plan(readings, event, seed=seed, rates=RATES if faults else {}, forms=written, limit=limit)


def event_of(data: Dataset, declared: Mapping[str, Event], name: str | None = None) -> Event:
    """The event type of a data set: the one named, the one the data tells, or the only one whose key it has.

    Raises ConfigError when that is none.
    """
    known = declared.get(name or data.event or "")
    if known is not None:
        found = [known]
    elif name is not None:
        hint = f"declared are {', '.join(sorted(declared))}"
        raise ConfigError([Problem(f"no event type {name!r} is declared", hint)])
    else:
        found = [event for event in declared.values() if event.key in data.columns]
    if len(found) != 1:
        hint = f"name one of {', '.join(sorted(declared))} with --event"
        raise ConfigError([Problem(f"{data.name} does not tell of which event type it is", hint)])
    if found[0].key not in data.columns:
        hint = f"{found[0].name} needs it, as its key; there are {', '.join(data.columns)}"
        raise ConfigError([Problem(f"{data.name} has no column {found[0].key!r}", hint)])
    return found[0]


def written_forms(event: Event) -> dict[str, Encode]:
    """The forms in which an event can be written onto the stream. Raises ConfigError for a broken schema."""
    try:
        return forms([json.loads(path.read_text(encoding="utf-8")) for path in schema_files(event.name)])
    except (OSError, ValueError) as error:
        problem = Problem(
            f"the schema of {event.name!r} cannot be read: {error}", "write it as an Avro schema"
        )
        raise ConfigError([problem]) from error
