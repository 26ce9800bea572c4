"""Where a user's code is: the file and line of a function, of a declaration and of an error."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from types import CodeType, FrameType
from typing import Any

_PACKAGE = __file__.rpartition("/")[0] + "/"
_SHIPPED = _PACKAGE + "events/"
_STANDARD_LIBRARY = inspect.__file__.rpartition("/")[0] + "/"
_INSTALLED = ("/site-packages/", "/dist-packages/")
_LONGEST = 80
_SPECIAL = re.compile(r"[\s()]")
_PLACE = re.compile(r" \(([^\s()]+:\d+)\)$")


def compact(filename: str, line: int) -> str:
    """A file's folder and name with a line, such as `events/meter.py:12`: the same on every machine."""
    name = "/".join(filename.split("/")[-2:]).encode("utf-8", "replace").decode()
    return f"{_SPECIAL.sub('_', name)[-_LONGEST:]}:{line}"


def with_line(text: str, line: str, longest: int) -> str:
    """A text that ends with a line, such as `KeyError: 'x' (events/meter.py:12)`, of at most so many characters."""
    place = f" ({line})"
    room = longest - len(place)
    return (text if len(text) <= room else text[: room - 1] + "…") + place


def without_line(text: str) -> str:
    """The text that `with_line` was given."""
    return _PLACE.sub("", text)


def line_in(text: str) -> str | None:
    """The line with which `with_line` had a text end, None where it ends with none."""
    found = _PLACE.search(text)
    return found[1] if found else None


def defined_at(function: Callable[..., Any]) -> str:
    """Where a function begins, or its name where it was not written in Python."""
    code = _code(function)
    if code is None:
        return str(getattr(function, "__qualname__", None) or type(function).__qualname__)
    return compact(code.co_filename, code.co_firstlineno)


def raised_at(error: BaseException) -> str | None:
    """The innermost line of a user's own code that an error came through, None where it came through none.

    A user's own code is neither this package (but for the events that come with it), nor the standard library, nor an
    installed package. Where all of it is one of these, it is the first line outside this package.
    """
    own: str | None = None
    first: str | None = None
    trace = error.__traceback__
    while trace is not None:
        filename = trace.tb_frame.f_code.co_filename
        if _is_own(filename):
            own = compact(filename, trace.tb_lineno)
        elif first is None and not filename.startswith(_PACKAGE):
            first = compact(filename, trace.tb_lineno)
        trace = trace.tb_next
    return own or first


def is_defined_in(error: BaseException, module: str) -> bool:
    """Whether an error was raised by a function of this module itself."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__") == module


def caller() -> str:
    """Where the function that calls the caller of this one was called from, past generated code."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith(("<", _STANDARD_LIBRARY)):
        frame = frame.f_back
    return "" if frame is None else compact(frame.f_code.co_filename, frame.f_lineno)


@lru_cache(maxsize=1_024)
def _is_own(filename: str) -> bool:
    if filename.startswith(_SHIPPED):
        return True
    if filename.startswith(("<", _PACKAGE, _STANDARD_LIBRARY)):
        return False
    return not any(folder in filename for folder in _INSTALLED)


def _code(function: Any) -> CodeType | None:
    while isinstance(function, partial):
        function = function.func
    function = inspect.unwrap(function)
    if not hasattr(function, "__code__"):
        function = inspect.getattr_static(type(function), "__call__", None)
    code = getattr(function, "__code__", None)
    return code if isinstance(code, CodeType) else None
