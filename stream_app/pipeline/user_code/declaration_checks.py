"""Checks an event's declaration against its schema at start, before any record is read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from stream_app.errors import Problem
from stream_app.model.event import PAYLOAD, Event, Range, Rate, Stuck
from stream_app.model.record import EXACT
from stream_app.pipeline.user_code.column_names import colliding_names, stored_name
from stream_app.pipeline.values.schema import (
    BOOLEAN,
    FLOAT,
    IDENTITY,
    INTEGER,
    SINGLE,
    TEXT,
    TIME_MS,
    TIME_US,
    Field,
    Schema,
)

_NUMBERS = frozenset({FLOAT, SINGLE, INTEGER, BOOLEAN})
_TIMES = frozenset({TIME_MS, TIME_US})
_NAMES = frozenset({TEXT, IDENTITY})
_DEFAULT_ID = "id"
# Columns that the pipeline adds.
RESERVED = frozenset({"arrived", "score", "anomaly", "explanation"})
# Prefixes of columns that the pipeline adds.
HELPER_PREFIXES = ("window.", "previous.", EXACT)
FLAG = "flag"


def problems(event: Event, schema: Schema) -> list[Problem]:
    """Return a problem for each part of the declaration that could fail on a record."""
    fields = {field.name: field for field in schema.fields}
    found = [
        *_reserved(fields),
        *_names(event, fields),
        *_unknown(event, fields),
        *_kinds(event, fields),
        *_key(event, fields),
        *_window(event),
        *_checks(event, fields),
    ]
    if event.detector is not None and not event.features:
        found.append(Problem("a detector without features", "list the fields that it scores: features=(…)"))
    return [Problem(f"event {event.name!r}: {what}", hint) for what, hint in found]


def without_deduplication(event: Event, schema: Schema) -> Problem | None:
    """Return a warning if neither a field nor the payload identifies a record, so that duplicates are stored."""
    if event.id == PAYLOAD or any(field.name == event.id for field in schema.fields):
        return None
    what = f"event {event.name!r} is stored without deduplication: its schema has no field {event.id!r}"
    return Problem(
        what, "name the identifying field (id=…), or declare id=PAYLOAD to take a hash of the record's bytes"
    )


def _reserved(fields: dict[str, Field]) -> Iterator[Problem]:
    for name in sorted(RESERVED & fields.keys()):
        yield Problem(
            f"its schema has a field {name!r}", "the pipeline adds a column of that name: rename the field"
        )


def _names(event: Event, fields: dict[str, Field]) -> Iterator[Problem]:
    """Check for names that could refer to two values."""
    for name in colliding_names(fields, event.name):
        what = f"fields {name!r} and {stored_name(name, event.name)!r} would be stored in one column"
        yield Problem(what, "rename one of them, with the old name as an alias")
    owner: dict[str, str] = {}
    for field in fields.values():
        for alias in dict.fromkeys(field.aliases):
            if alias in fields and alias != field.name:
                what = f"field {field.name!r} has the alias {alias!r}, which is also the name of a field"
                yield Problem(what, "remove the alias, or rename the other field")
            elif alias in owner:
                what = f"fields {owner[alias]!r} and {field.name!r} have the same alias {alias!r}"
                yield Problem(what, "remove the alias from one of them")
            owner.setdefault(alias, field.name)


def _roles(event: Event) -> dict[str, tuple[str, ...]]:
    window = event.window
    return {
        "key": (event.key,),
        "id": () if event.id in (_DEFAULT_ID, PAYLOAD) else (event.id,),
        "required": event.required,
        "features": event.features,
        "previous": event.previous,
        "sent": () if event.sent is None else (event.sent,),
        "window": () if window is None else (*window.fields, window.time),
        "checks": tuple(check.field for check in event.checks),
        "a Rate's time": tuple(check.time for check in event.checks if isinstance(check, Rate)),
    }


def _unknown(event: Event, fields: dict[str, Field]) -> Iterator[Problem]:
    hint = f"name a field of the schema: {', '.join(sorted(fields))}"
    for role, names in _roles(event).items():
        for name in names:
            if name not in fields:
                yield Problem(f"{role} names {name!r}, which is not a field", hint)


def _kinds(event: Event, fields: dict[str, Field]) -> Iterator[Problem]:
    window = event.window
    expected = [
        ("key", (event.key,), _NAMES, "text"),
        ("id", (event.id,), _NAMES | _TIMES | {INTEGER}, "text, a whole number or a time"),
        ("features", event.features, _NUMBERS, "a number"),
        ("sent", (event.sent,), _TIMES, "a timestamp-millis or -micros"),
        ("window", window.fields if window else (), _NUMBERS, "a number"),
        ("window's time", (window.time,) if window else (), _TIMES, "a timestamp-millis or -micros"),
        ("checks", [check.field for check in event.checks], _NUMBERS, "a number"),
        ("a Rate's time", [c.time for c in event.checks if isinstance(c, Rate)], _TIMES, "a timestamp"),
    ]
    for role, names, kinds, description in expected:
        for name in names:
            if name in fields and fields[name].kind not in kinds:
                yield Problem(
                    f"{role} names {name!r}, which is not {description}", "change its type in the schema"
                )


def _key(event: Event, fields: dict[str, Field]) -> Iterator[Problem]:
    """Check that every row has a key, by which state is stored."""
    key = fields.get(event.key)
    if key is not None and (key.nullable or key.has_default) and event.key not in event.required:
        yield Problem(f"key {event.key!r} may be absent", "add the key to required")


def _window(event: Event) -> Iterator[Problem]:
    window = event.window
    if window is None:
        return
    if window.time not in event.required:
        yield Problem(
            "its window's time is not required", "a window needs the time of every row: add it to required"
        )
    if not window.fields or window.size < 1 or window.step <= timedelta(0):
        yield Problem("its window is empty", "give at least one field, a size of at least 1, a step above 0")


def _checks(event: Event, fields: dict[str, Field]) -> Iterator[Problem]:
    if event.checks and "flag" in fields:
        yield Problem("its schema has a field 'flag'", "checks add a column of that name: rename the field")
    for check in event.checks:
        invalid = (
            (isinstance(check, Range) and not check.low <= check.high)
            or (isinstance(check, Rate) and not (check.most >= 0 and check.per > timedelta(0)))
            or (isinstance(check, Stuck) and check.times < 2)
        )
        if invalid:
            hint = "a Range needs low <= high, a Rate most >= 0 and per > 0, a Stuck times >= 2"
            yield Problem(f"a check with invalid limits: {check.name}", hint)
