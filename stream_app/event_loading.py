"""Loads event types and schema files: from the working directory, installed distributions and this package."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Iterator
from pathlib import Path

from stream_app.errors import ConfigError, Problem
from stream_app.extensions import Extension, installed, installed_folder, local
from stream_app.model.event import Event
from stream_app.pipeline.registry import Registry, Versions, compile_registry
from stream_app.pipeline.values.schema import Json
from stream_app.resources import search_path

EVENTS_GROUP = "stream_app.events"
"""The entry-point group of event types; each entry point has the event's name and refers to its `Event` or module."""
_SHIPPED = "stream_app.events."


def load_registry(*, dry_run: bool = True) -> Registry:
    """Compile every event type that is found, with its schema files. Raises ConfigError with every problem.

    With `dry_run` the users' functions are called with generated rows; programs that call none of these functions
    need no dry run.
    """
    events, problems = find()
    schemas: dict[str, Versions] = {}
    for name in events:
        versions, unreadable = _read_schemas(name)
        problems += unreadable
        if versions:
            schemas[name] = versions
    usable = (event for name, event in events.items() if name in schemas)
    registry, invalid = compile_registry(usable, schemas, dry_run=dry_run)
    if problems or invalid:
        raise ConfigError([*problems, *invalid])
    return registry


def discover() -> dict[str, Event]:
    """Every event type by name: of the folder `events`, of installed distributions, then the shipped ones.

    A shipped event type is replaced by another one of the same name. Raises ConfigError naming every module and
    distribution that cannot be used.
    """
    events, problems = find()
    if problems:
        raise ConfigError(problems)
    return events


def find() -> tuple[dict[str, Event], list[Problem]]:
    """The event types that `discover` returns, with the problems that it raises."""
    events: dict[str, Event] = {}
    sources: dict[str, str] = {}
    problems: list[Problem] = []
    for extension in _extensions(problems):
        event = _event(extension, problems)
        if event is None:
            continue
        first = sources.setdefault(event.name, extension.source)
        if first == extension.source:
            events[event.name] = event
        elif not extension.source.startswith(_SHIPPED):
            what = f"event {event.name!r} is declared twice: {first} and {extension.source}"
            problems.append(Problem(what, "rename one of them"))
    return events, problems


def schema_files(name: str) -> list[Path]:
    """The schema of an event, current first, then each past version kept (`<name>.v<N>.avsc`, newest first).

    They are in the folder `schemas` of the working directory, beside the module of an installed event type, or in
    this package. Raises ConfigError where there is none.
    """
    for folder in _schema_folders(name):
        current = folder / f"{name}.avsc"
        if current.is_file():
            return [current, *sorted(folder.glob(f"{name}.v*.avsc"), key=_version, reverse=True)]
    raise ConfigError([Problem(f"no schema for event {name!r}", f"write schemas/{name}.avsc")])


def _schema_folders(name: str) -> Iterator[Path]:
    *own, shipped = search_path("schemas")
    yield from own
    beside = installed_folder(EVENTS_GROUP, name)
    if beside is not None:
        yield beside / "schemas"
    yield shipped


def _extensions(problems: list[Problem]) -> Iterator[Extension]:
    yield from local("events", problems)
    yield from installed(EVENTS_GROUP, problems)
    import stream_app.events as shipped_events

    for info in pkgutil.iter_modules(shipped_events.__path__, _SHIPPED):
        if not info.name.rpartition(".")[2].startswith("_"):
            yield Extension(info.name, info.name, importlib.import_module(info.name))


def _event(extension: Extension, problems: list[Problem]) -> Event | None:
    event = getattr(extension.value, "EVENT", extension.value)
    if not isinstance(event, Event):
        problems.append(Problem(f"{extension.source} declares no EVENT", "add EVENT = Event(name=…, key=…)"))
    elif not isinstance(event.name, str) or not event.name:
        what = f"{extension.source}: name is {event.name!r} ({event.declared_at})"
        problems.append(Problem(what, "give the event's name as text"))
    else:
        return event
    return None


def _read_schemas(name: str) -> tuple[Versions, list[Problem]]:
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


def _version(path: Path) -> int:
    digits = path.name.split(".")[-2].removeprefix("v")
    return int(digits) if digits.isdigit() else -1
