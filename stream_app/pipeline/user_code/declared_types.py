"""Checks the types of an event's attributes, before the checks that rely on them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, fields, replace
from datetime import timedelta
from typing import Any

from stream_app.errors import Problem
from stream_app.model.event import Event, Range, Rate, Stuck, Window
from stream_app.source_lines import defined_at

_Found = Iterator[tuple[str, str]]
_FUNCTIONS = ("verify", "calculate", "correct")
_ORDERED = ("features", "previous")


def valid_part(event: Event) -> tuple[Event | None, list[Problem]]:
    """Return the event with defaults in place of attributes of a wrong type, and a problem for each of them.

    Returns no event if `name` or `key` has a wrong type, as they have no default.
    """
    defaults = {item.name: item.default for item in fields(Event) if item.init}
    problems: list[Problem] = []
    replaced: dict[str, Any] = {}  # defaults, each of the type of its attribute
    usable = True
    for name, default in defaults.items():
        for what, hint in _problems(name, getattr(event, name)):
            problems.append(Problem(f"event {event.name!r}: {what} ({event.declared_at})", hint))
            replaced[name] = default
            usable &= default is not MISSING
    return (replace(event, **replaced) if usable else None), problems


def _problems(name: str, value: object) -> _Found:
    if name in ("name", "key", "id"):
        yield from _texts(name, [value], f'{name}="…"')
    elif name == "sent":
        yield from _texts(name, [] if value is None else [value], 'sent="…"')
    elif name in _FUNCTIONS:
        yield from _function(name, value)
    elif name == "detector":
        yield from _detector(value)
    elif name == "window":
        yield from _window(value)
    elif name == "checks":
        yield from _checks(value)
    elif name == "reject_coarse_times":
        if not isinstance(value, bool):
            yield (
                f"{name} is {_describe(value)}, expected True or False",
                f"write {name}=False or leave it out",
            )
    else:
        yield from _names(name, value, ordered=name in _ORDERED)


def _texts(name: str, values: Sequence[object], example: str) -> _Found:
    for value in values:
        if not isinstance(value, str) or not value:
            yield f"{name} is {_describe(value)}, expected text", f"write {example}"


def _names(name: str, value: object, *, ordered: bool) -> _Found:
    """Check a collection of field names. A single string, although a sequence of strings, is always a mistake."""
    if not isinstance(value, tuple | list) and (ordered or not isinstance(value, set | frozenset)):
        example = f'("{value}",)' if isinstance(value, str) else '("…",)'
        yield f"{name} is {_describe(value)}, expected a tuple of field names", f"write {name}={example}"
        return
    yield from _texts(f"a name in {name}", list(value), f'{name}=("…",)')


def _function(name: str, value: object) -> _Found:
    if value is None:
        return
    if not callable(value):
        yield (
            f"{name} is {_describe(value)}, expected a function",
            f"write def {name}(batch): … and {name}={name}",
        )
        return
    if _is_coroutine_or_generator(value):
        hint = "write a plain def that returns the columns"
        yield f"{name} at {defined_at(value)} is a coroutine or generator function", hint
    if not _takes(value, 1):
        yield (
            f"{name} at {defined_at(value)} cannot be called with one argument",
            f"write def {name}(batch): …",
        )


def _detector(value: object) -> _Found:
    hint = "give a class or function that takes the features, such as detector=NearestValue"
    if value is None:
        return
    if not callable(value):
        yield f"detector is {_describe(value)}, expected a function that creates a detector", hint
    elif _is_coroutine_or_generator(value) or not _takes(value, 1):
        yield f"detector {defined_at(value)} cannot be called with the features as its only argument", hint


def _window(value: object) -> _Found:
    if value is None:
        return
    if not isinstance(value, Window):
        yield f"window is {_describe(value)}, expected a Window", 'write window=Window(("…",), size=…)'
        return
    yield from _names("window.fields", value.fields, ordered=True)
    yield from _texts("window.time", [value.time], 'time="…"')
    step: object = value.step
    if not _is_integer(value.size):
        yield (
            f"window.size is {_describe(value.size)}, expected a whole number",
            "give the number of values: size=…",
        )
    if not isinstance(step, timedelta):
        yield f"window.step is {_describe(step)}, expected a timedelta", "write step=timedelta(hours=1)"


def _checks(value: object) -> _Found:
    if not isinstance(value, tuple | list):
        yield f"checks is {_describe(value)}, expected a tuple of checks", "write checks=(Range(…),)"
        return
    for check in value:
        if not isinstance(check, Range | Rate | Stuck):
            hint = "give a Range, Rate or Stuck from stream_app.api"
            yield f"checks holds {_describe(check)}, which is not a check", hint
            continue
        yield from _check(check)


def _check(check: Range | Rate | Stuck) -> _Found:
    kind = type(check)
    hint = f"see the documentation of stream_app.api.{kind.__name__}"
    for name, expected, is_valid in _MEMBERS[kind]:
        value = getattr(check, name)
        if not is_valid(value):
            yield f"{name} of a {kind.__name__} is {_describe(value)}, expected {expected}", hint


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_integer(value: object) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_integer(value) or (isinstance(value, float) and value == value)


def _are_numbers(value: object) -> bool:
    return isinstance(value, tuple | list | set | frozenset) and all(map(_is_number, value))


def _is_coroutine_or_generator(function: object) -> bool:
    """Whether a call only creates a coroutine or a generator."""
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    called = inspect.getattr_static(type(function), "__call__", None)
    return any(kind(function) or kind(called) for kind in kinds)


def _takes(function: Callable[..., object], arguments: int) -> bool:
    """Whether a function accepts this number of positional arguments; true if it has no signature to inspect."""
    try:
        inspect.signature(function).bind(*range(arguments))
    except TypeError:
        return False
    except ValueError:  # some functions written in C have no signature
        return True
    return True


_FIELD = ("field", "text", _is_text)
_MEMBERS: dict[type, list[tuple[str, str, Callable[[object], bool]]]] = {
    Range: [_FIELD, ("low", "a number", _is_number), ("high", "a number", _is_number)],
    Rate: [
        _FIELD,
        ("most", "a number", _is_number),
        ("per", "a timedelta", lambda per: isinstance(per, timedelta)),
        ("time", "text", _is_text),
    ],
    Stuck: [
        _FIELD,
        ("times", "a whole number", _is_integer),
        ("besides", "a tuple of numbers", _are_numbers),
    ],
}


def _describe(value: object) -> str:
    try:
        text = repr(value)
    except Exception:
        text = "…"
    return f"{text if len(text) <= 60 else text[:59] + '…'} ({type(value).__name__})"
