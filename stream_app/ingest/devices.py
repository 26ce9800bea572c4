"""Simulated devices: play a data set to the event bus and the stream, with seeded faults."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from stream_app.errors import ConfigError, Problem
from stream_app.event_loading import discover, schema_files
from stream_app.ingest.datasets import Dataset, dataset
from stream_app.ingest.envelope import Encode, OutgoingRecord, encoders
from stream_app.ingest.faults import LIMIT, RATES, SEED, plan
from stream_app.ingest.producer import Sent, publish
from stream_app.ingest.publish_options import Destination, PublishOptions
from stream_app.model.event import Event


@dataclass(frozen=True, slots=True)
class PlayOptions:
    """What to play.

    `faults` adds the seeded faults of `faults.RATES`; without them, every reading is sent unchanged. `event` names
    the event type if the data does not. `declared` are the event types, by default those found by `discover`.
    `first` limits the number of readings. `limit` is the application's `max_record_bytes`.
    """

    seed: int = SEED
    faults: bool = True
    event: str | None = None
    declared: Mapping[str, Event] | None = None
    first: int | None = None
    limit: int = LIMIT


_PUBLISH_DEFAULTS = PublishOptions()


def play(
    source: str | Path | Dataset,
    destination: Destination,
    options: PlayOptions = PlayOptions(),
    publishing: PublishOptions = _PUBLISH_DEFAULTS,
) -> Sent:
    """Play a data set: a name from `datasets.NAMES`, a file, a folder, or the result of `dataset`.

    `publishing.encoders` is set to the encodings of the event type. Raises ConfigError before anything is sent if
    the data cannot be played, and FatalError like `publish`.
    """
    data = source if isinstance(source, Dataset) else dataset(source)
    declared = discover() if options.declared is None else options.declared
    event = event_of(data, declared, options.event)
    available = event_encoders(event) if options.faults else {}
    records = outgoing_records(data, event, available, options)
    return publish(records, destination, replace(publishing, encoders=available))


def outgoing_records(
    data: Dataset,
    event: Event,
    available: Mapping[str, Encode],
    options: PlayOptions = PlayOptions(),
) -> Iterator[OutgoingRecord]:
    """Return the records that `play` sends. `faults.expected` counts the outcomes that they should have."""
    return plan(
        itertools.islice(data.rows(), options.first),
        event,
        seed=options.seed,
        rates=RATES if options.faults else {},
        encodings=available,
        limit=options.limit,
    )


def event_of(data: Dataset, declared: Mapping[str, Event], name: str | None = None) -> Event:
    """Determine the event type of a data set: `name`, else the data's own, else the only one with a matching key.

    Raises ConfigError if there is no such event type or more than one.
    """
    known = declared.get(name or data.event or "")
    if known is not None:
        found = [known]
    elif name is not None:
        hint = f"use one of {', '.join(sorted(declared))}"
        raise ConfigError([Problem(f"no event type {name!r} is declared", hint)])
    else:
        found = [event for event in declared.values() if event.key in data.columns]
    if len(found) != 1:
        hint = f"specify one of {', '.join(sorted(declared))} with --event"
        raise ConfigError([Problem(f"the event type of {data.name} is ambiguous", hint)])
    if found[0].key not in data.columns:
        hint = f"{found[0].name} requires it as its key; the columns are {', '.join(data.columns)}"
        raise ConfigError([Problem(f"{data.name} has no column {found[0].key!r}", hint)])
    return found[0]


def event_encoders(event: Event) -> dict[str, Encode]:
    """Return the encoders for an event type's records on the stream. Raises ConfigError for an invalid schema."""
    try:
        return encoders([json.loads(path.read_text(encoding="utf-8")) for path in schema_files(event.name)])
    except (OSError, ValueError) as error:
        problem = Problem(
            f"the schema of {event.name!r} cannot be read: {error}", "write it as an Avro schema"
        )
        raise ConfigError([problem]) from error
