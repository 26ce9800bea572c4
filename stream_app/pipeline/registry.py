"""The declared event types with their schemas, compiled once at start."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from stream_app.errors import ConfigError, Problem
from stream_app.event import Event, discover, schema_files
from stream_app.pipeline.schema import Field, Json, Schema, compile_schema, json_type


@dataclass(frozen=True, slots=True)
class Codec:
    """How records of one event type are read: the current schema (the reader's) and the versions kept."""

    event: Event
    schema: Schema
    decoder: msgspec.json.Decoder[Any]
    struct: type[msgspec.Struct]
    aliased: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Registry:
    """Codecs by event name, and writer schemas by fingerprint as (event name, schema)."""

    codecs: Mapping[str, Codec]
    writers: Mapping[str, tuple[str, Schema]]

    @classmethod
    def of(cls, events: Iterable[Event], schemas: Mapping[str, Sequence[Json]]) -> Registry:
        """`schemas` gives each event's versions, the current first. Raises ConfigError with every problem."""
        codecs: dict[str, Codec] = {}
        writers: dict[str, tuple[str, Schema]] = {}
        problems: list[Problem] = []
        for event in events:
            try:
                versions = [compile_schema(raw, f"schemas/{event.name}") for raw in schemas[event.name]]
            except ConfigError as error:
                problems += error.problems
                continue
            problems += _problems(event, versions[0])
            codecs[event.name] = _codec(event, versions[0], schemas[event.name][0])
            for version in reversed(versions):
                writers[version.fingerprint] = (event.name, version)
        if problems:
            raise ConfigError(problems)
        return cls(codecs, writers)

    @classmethod
    def load(cls) -> Registry:
        """Every event type that `discover` finds, with its schema files. Raises ConfigError."""
        events = discover()
        problems: list[Problem] = []
        schemas: dict[str, list[Json]] = {}
        for name in events:
            try:
                schemas[name] = [json.loads(path.read_text(encoding="utf-8")) for path in schema_files(name)]
            except ConfigError as error:
                problems += error.problems
            except (OSError, ValueError) as error:
                problems.append(
                    Problem(f"the schema of {name!r} cannot be read: {error}", "write it as JSON")
                )
        if problems:
            raise ConfigError(problems)
        return cls.of(events.values(), schemas)


def _codec(event: Event, schema: Schema, raw: Json) -> Codec:
    struct = json_type(schema, raw, event.required)
    aliased = tuple(field for field in schema.fields if field.aliases)
    return Codec(event, schema, msgspec.json.Decoder(struct), struct, aliased)


def _problems(event: Event, schema: Schema) -> list[Problem]:
    named = {
        "key": (event.key,),
        "required": event.required,
        "features": event.features,
        "previous": event.previous,
    }
    if event.sent is not None:
        named["sent"] = (event.sent,)
    if event.window is not None:
        named["window"] = (*event.window.fields, event.window.time)
    known = {field.name for field in schema.fields}
    untimed = event.window is not None and event.window.time not in event.required
    hint = "a window needs the time of every row: add it to required"
    problems = [Problem(f"event {event.name!r}: its window's time is not required", hint)] if untimed else []
    return problems + [
        Problem(f"event {event.name!r}: {role} names {name!r}", f"schema has {', '.join(sorted(known))}")
        for role, names in named.items()
        for name in names
        if name not in known
    ]
