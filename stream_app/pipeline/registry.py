"""The registry of declared event types, compiled with their schemas at startup."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from stream_app.errors import ConfigError, Problem
from stream_app.model.event import Event
from stream_app.pipeline.readers import avro_reader, json_reader
from stream_app.pipeline.readers.avro_conversion import ConflictError
from stream_app.pipeline.readers.avro_reader import ReadRecord
from stream_app.pipeline.readers.fast_path import FastPath
from stream_app.pipeline.readers.json_reader import RecordReader
from stream_app.pipeline.user_code import declaration_checks, declared_types
from stream_app.pipeline.values.scalar_times import Instant
from stream_app.pipeline.values.schema import TICKS_PER_SECOND, Json, Schema, compile_schema
from stream_app.pipeline.values.schema_versions import first_difference

Versions = Sequence[tuple[str, Json]]


@dataclass(frozen=True, slots=True)
class Codec:
    """The compiled readers of one event type.

    `schema` is the reader schema. `json` reads JSON, `avro` Avro binary by the fingerprint of the writer schema.
    `times` has the index, the name and the reader of each time column.
    """

    event: Event
    schema: Schema
    json: RecordReader
    avro: Mapping[str, ReadRecord]
    times: tuple[tuple[int, str, Instant], ...]


@dataclass(frozen=True, slots=True)
class Registry:
    """Codecs by event name, (event name, writer schema) by fingerprint, and the fast path for JSON records."""

    codecs: Mapping[str, Codec]
    writers: Mapping[str, tuple[str, Schema]]
    fast_path: FastPath

    @classmethod
    def of(
        cls, events: Iterable[Event], schemas: Mapping[str, Sequence[Json]], *, dry_run: bool = True
    ) -> Registry:
        """Compile events; `schemas` has the versions of each, current first. Raises ConfigError."""
        named = {name: [(f"schemas/{name}", raw) for raw in raws] for name, raws in schemas.items()}
        registry, problems = compile_registry(events, named, dry_run=dry_run)
        if problems:
            raise ConfigError(problems)
        return registry


def compile_registry(
    events: Iterable[Event], schemas: Mapping[str, Versions], *, dry_run: bool
) -> tuple[Registry, list[Problem]]:
    """Compile each event with its schema versions; return what compiled, and every problem.

    `schemas` has the versions of each event, the current one first, as (name of the source, schema). With `dry_run`
    the users' functions are called with generated rows.
    """
    codecs: dict[str, Codec] = {}
    writers: dict[str, tuple[str, Schema]] = {}
    problems: list[Problem] = []
    for declared in events:
        event, event_problems = declared_types.valid_part(declared)
        problems += event_problems
        if event is None:
            continue
        try:
            versions = [(source, compile_schema(raw, source)) for source, raw in schemas[event.name]]
        except ConfigError as error:
            problems += error.problems
            continue
        codecs[event.name], event_problems = _codec(event, versions)
        event_problems = [*event_problems, *declaration_checks.problems(event, versions[0][1])]
        problems += event_problems
        if dry_run and not event_problems:
            problems += _dry_run(codecs[event.name])
        for source, version in reversed(versions):
            other, _ = writers.get(version.fingerprint, (event.name, version))
            if other != event.name:
                hint = "give the record another name: Avro binary records are identified by their schema"
                problems.append(Problem(f"{source} has the same fingerprint as event {other!r}", hint))
            writers[version.fingerprint] = (event.name, version)
    fast_path = FastPath(
        (name, codec.schema, codec.event.required, codec.event.id) for name, codec in codecs.items()
    )
    return Registry(codecs, writers, fast_path), problems


def _dry_run(codec: Codec) -> list[Problem]:
    from stream_app.pipeline.user_code import dry_run  # the dry run itself imports this module

    return dry_run.problems(codec)


def _codec(event: Event, versions: Sequence[tuple[str, Schema]]) -> tuple[Codec, list[Problem]]:
    """`versions` are the schemas with the files that they come from, the current one first."""
    schema, required = versions[0][1], event.required
    avro: dict[str, ReadRecord] = {}
    problems: list[Problem] = []
    for source, writer in versions:
        try:
            read = avro_reader.record_reader(writer.type, schema.type, required, schema.columns)
        except ConflictError as error:
            hint = "keep the logical type, or give the field another name"
            problems.append(Problem(f"{source} and {versions[0][0]} differ: {error}", hint))
            continue
        same = next((one for one in versions if one[1].fingerprint == writer.fingerprint), versions[0])
        field = first_difference(writer.type, same[1].type)
        if field is not None:
            problems.append(
                Problem(
                    f"{source} and {same[0]} have the same fingerprint, but field {field} has another logical type, "
                    "which Avro fingerprints ignore",
                    "give the changed field another name, with the old one as its alias",
                )
            )
        avro.setdefault(writer.fingerprint, read)
    times = tuple(
        (at, field.name, Instant(TICKS_PER_SECOND[field.kind], column=True))
        for at, field in enumerate(schema.fields)
        if field.kind in TICKS_PER_SECOND
    )
    json = json_reader.record_reader(schema.type, required, schema.columns)
    return Codec(event, schema, json, avro, times), problems
