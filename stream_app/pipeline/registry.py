"""The declared event types with their schemas, compiled once at start."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from stream_app.errors import ConfigError, Problem
from stream_app.event import Event, find, schema_files
from stream_app.pipeline import checks, declaration
from stream_app.pipeline.json_form import json_type
from stream_app.pipeline.schema import Field, Json, Schema, compile_schema, nested_of, reader_of
from stream_app.pipeline.usual_form import UsualForm

Versions = Sequence[tuple[str, Json]]


@dataclass(frozen=True, slots=True)
class Codec:
    """How records of one event type are read.

    `schema` is the current one; `aliased` are its fields that have older names, `nested` its columns of objects
    (`schema.nested_of`), `reader` the form in which it reads other writers' Avro (`schema.reader_of`).
    """

    event: Event
    schema: Schema
    decoder: msgspec.json.Decoder[Any]
    struct: type[msgspec.Struct]
    aliased: tuple[Field, ...]
    nested: Json | None
    reader: Json


@dataclass(frozen=True, slots=True)
class Registry:
    """Codecs by event name, writer schemas by fingerprint as (event name, schema), and what most records are."""

    codecs: Mapping[str, Codec]
    writers: Mapping[str, tuple[str, Schema]]
    usual: UsualForm

    @classmethod
    def of(
        cls, events: Iterable[Event], schemas: Mapping[str, Sequence[Json]], *, dry_run: bool = True
    ) -> Registry:
        """`schemas` gives each event's versions, the current first. Raises ConfigError with every problem."""
        named = {name: [(f"schemas/{name}", raw) for raw in raws] for name, raws in schemas.items()}
        registry, problems = _compile(events, named, dry_run)
        if problems:
            raise ConfigError(problems)
        return registry

    @classmethod
    def load(cls, *, dry_run: bool = True) -> Registry:
        """Every event type that there is, with its schema files. Raises ConfigError with every problem.

        The users' functions are called with generated rows (`dry_run`); programs that call none of them need not.
        """
        events, problems = find()
        schemas: dict[str, Versions] = {}
        for name in events:
            versions, unreadable = _read(name)
            problems += unreadable
            if versions:
                schemas[name] = versions
        usable = (event for name, event in events.items() if name in schemas)
        registry, wrong = _compile(usable, schemas, dry_run)
        if problems or wrong:
            raise ConfigError([*problems, *wrong])
        return registry


def _read(name: str) -> tuple[Versions, list[Problem]]:
    versions: list[tuple[str, Json]] = []
    problems: list[Problem] = []
    try:
        paths = schema_files(name)
    except ConfigError as error:
        return [], list(error.problems)
    for path in paths:
        source = f"schemas/{path.name}"
        try:
            versions.append((source, json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError) as error:
            problems.append(Problem(f"{source} cannot be read: {error}", "write it as JSON"))
    return ([] if problems else versions), problems


def _compile(
    events: Iterable[Event], schemas: Mapping[str, Versions], dry_run: bool
) -> tuple[Registry, list[Problem]]:
    codecs: dict[str, Codec] = {}
    writers: dict[str, tuple[str, Schema]] = {}
    problems: list[Problem] = []
    for declared in events:
        event, wrong = declaration.sound_part(declared)
        problems += wrong
        if event is None:
            continue
        try:
            versions = [(source, compile_schema(raw, source)) for source, raw in schemas[event.name]]
            codecs[event.name] = _codec(event, *versions[0])
        except ConfigError as error:
            problems += error.problems
            continue
        unfit = checks.problems(event, versions[0][1])
        problems += unfit
        if dry_run and not unfit:
            problems += _dry_run(codecs[event.name])
        for source, version in reversed(versions):
            other, _ = writers.get(version.fingerprint, (event.name, version))
            if other != event.name:
                hint = "give the record a name of its own: Avro binary is known by it"
                problems.append(Problem(f"{source} has the same fingerprint as event {other!r}", hint))
            writers[version.fingerprint] = (event.name, version)
    usual = UsualForm((name, codec.schema, codec.event.required) for name, codec in codecs.items())
    return Registry(codecs, writers, usual), problems


def _dry_run(codec: Codec) -> list[Problem]:
    from stream_app.pipeline import dry_run  # which takes rows through stages that know codecs

    return dry_run.problems(codec)


def _codec(event: Event, source: str, schema: Schema) -> Codec:
    try:
        struct = json_type(schema, event.required)
        decoder = msgspec.json.Decoder(struct)
    except (TypeError, ValueError, RuntimeError) as error:
        hint = (
            "use a type that JSON can tell: a union of one text-like, one map-like and one list-like branch"
        )
        raise ConfigError([Problem(f"{source} cannot be read from JSON: {error}", hint)]) from error
    aliased = tuple(field for field in schema.fields if field.aliases)
    reader = reader_of(schema, event.required)
    return Codec(event, schema, decoder, struct, aliased, nested_of(schema), reader)
