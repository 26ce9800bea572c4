"""Types of what an event declares: asked first, so that later checks may rely on them."""

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
    """The event without the attributes that have a wrong type, and a problem for each of them.

    None where what is wrong is `name` or `key`, without which there is no event.
    """
    defaults = {item.name: item.default for item in fields(Event) if item.init}
    found: list[Problem] = []
    wrong: dict[str, Any] = {}
    usable = True
    for name, default in defaults.items():
        for what, hint in _problems(name, getattr(event, name)):
            found.append(Problem(f"event {event.name!r}: {what} ({event.declared_at})", hint))
            wrong[name] = default
            usable &= default is not MISSING
    return (replace(event, **wrong) if usable else None), found


def _problems(name: str, value: Any) -> _Found:
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
            yield f"{name} is {_shown(value)}, expected True or False", f"write {name}=False or leave it out"
    else:
        yield from _names(name, value, ordered=name in _ORDERED)


def _texts(name: str, values: Sequence[Any], example: str) -> _Found:
    for value in values:
        if not isinstance(value, str) or not value:
            yield f"{name} is {_shown(value)}, expected text", f"write {example}"


def _names(name: str, value: Any, *, ordered: bool) -> _Found:
    """Names of fields. A single text is a sequence of characters, which is never meant."""
    if not isinstance(value, tuple | list) and (ordered or not isinstance(value, set | frozenset)):
        example = f'("{value}",)' if isinstance(value, str) else '("…",)'
        yield f"{name} is {_shown(value)}, expected a tuple of field names", f"write {name}={example}"
        return
    yield from _texts(f"a name in {name}", list(value), f'{name}=("…",)')


def _function(name: str, value: Any) -> _Found:
    if value is None:
        return
    if not callable(value):
        yield (
            f"{name} is {_shown(value)}, expected a function",
            f"write def {name}(batch): … and {name}={name}",
        )
        return
    if _is_deferred(value):
        hint = "write a plain def that returns the columns"
        yield f"{name} at {defined_at(value)} is a coroutine or generator function", hint
    if not _takes(value, 1):
        yield (
            f"{name} at {defined_at(value)} cannot be called with one argument",
            f"write def {name}(batch): …",
        )


def _detector(value: Any) -> _Found:
    hint = "name a class or function that takes the features, such as detector=NearestValue"
    if value is None:
        return
    if not callable(value):
        yield f"detector is {_shown(value)}, expected a function that makes one", hint
    elif _is_deferred(value) or not _takes(value, 1):
        yield f"detector {defined_at(value)} cannot be called with the features alone", hint


def _window(value: Any) -> _Found:
    if value is None:
        return
    if not isinstance(value, Window):
        yield f"window is {_shown(value)}, expected a Window", 'write window=Window(("…",), size=…)'
        return
    yield from _names("window.fields", value.fields, ordered=True)
    yield from _texts("window.time", [value.time], 'time="…"')
    step: Any = value.step
    if not _is_whole(value.size):
        yield f"window.size is {_shown(value.size)}, expected a whole number", "give the number of steps"
    if not isinstance(step, timedelta):
        yield f"window.step is {_shown(step)}, expected a timedelta", "write step=timedelta(hours=1)"


def _checks(value: Any) -> _Found:
    if not isinstance(value, tuple | list):
        yield f"checks is {_shown(value)}, expected a tuple of checks", "write checks=(Range(…),)"
        return
    for check in value:
        if not isinstance(check, Range | Rate | Stuck):
            hint = "give a Range, Rate or Stuck of stream_app.model.event"
            yield f"checks holds {_shown(check)}, which is no check", hint
            continue
        yield from _check(check)


def _check(check: Range | Rate | Stuck) -> _Found:
    kind = type(check)
    hint = f"see the declaration of {kind.__name__} in stream_app.model.event"
    for name, said, holds in _MEMBERS[kind]:
        value = getattr(check, name)
        if not holds(value):
            yield f"{name} of a {kind.__name__} is {_shown(value)}, expected {said}", hint


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_whole(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and value == value)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, tuple | list | set | frozenset) and all(map(_is_number, value))


def _is_deferred(function: Any) -> bool:
    """Whether a call does nothing but make a coroutine or a generator."""
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    called = inspect.getattr_static(type(function), "__call__", None)
    return any(kind(function) or kind(called) for kind in kinds)


def _takes(function: Callable[..., Any], arguments: int) -> bool:
    """Whether it can be called with so many positional arguments; a function without a signature counts as one."""
    try:
        inspect.signature(function).bind(*range(arguments))
    except TypeError:
        return False
    except ValueError:  # some of those that are written in C have none
        return True
    return True


_FIELD = ("field", "text", _is_text)
_MEMBERS: dict[type, list[tuple[str, str, Callable[[Any], bool]]]] = {
    Range: [_FIELD, ("low", "a number", _is_number), ("high", "a number", _is_number)],
    Rate: [
        _FIELD,
        ("most", "a number", _is_number),
        ("per", "a timedelta", lambda per: isinstance(per, timedelta)),
        ("time", "text", _is_text),
    ],
    Stuck: [_FIELD, ("times", "a whole number", _is_whole), ("besides", "a tuple of numbers", _are_numbers)],
}


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        text = "…"
    return f"{text if len(text) <= 60 else text[:59] + '…'} ({type(value).__name__})"
