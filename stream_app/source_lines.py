"""Source locations of user code: the file and line of a function, a declaration or an error."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from types import CodeType, FrameType

_PACKAGE = __file__.rpartition("/")[0] + "/"
_SHIPPED = _PACKAGE + "events/"
_STANDARD_LIBRARY = inspect.__file__.rpartition("/")[0] + "/"
_INSTALLED = ("/site-packages/", "/dist-packages/")
_LONGEST = 80
_SPECIAL = re.compile(r"[\s()]")
_PLACE = re.compile(r" \(([^\s()]+:\d+)\)$")


def compact(filename: str, line: int) -> str:
    """Return a file's folder and name with a line, such as `events/meter.py:12`, the same on every machine."""
    name = "/".join(filename.split("/")[-2:]).encode("utf-8", "replace").decode()
    return f"{_SPECIAL.sub('_', name)[-_LONGEST:]}:{line}"


def with_line(text: str, line: str, longest: int) -> str:
    """Append a line to a text, such as `KeyError: 'x' (events/meter.py:12)`; at most `longest` characters."""
    place = f" ({line})"
    room = longest - len(place)
    return (text if len(text) <= room else text[: room - 1] + "…") + place


def without_line(text: str) -> str:
    """Remove the line that `with_line` appended."""
    return _PLACE.sub("", text)


def line_in(text: str) -> str | None:
    """Return the line that `with_line` appended, or None."""
    found = _PLACE.search(text)
    return found[1] if found else None


def defined_at(function: Callable[..., object]) -> str:
    """Return the first line of a function, or its name if it is not written in Python."""
    code = _code(function)
    if code is None:
        return str(getattr(function, "__qualname__", None) or type(function).__qualname__)
    return compact(code.co_filename, code.co_firstlineno)


def raised_at(error: BaseException) -> str | None:
    """Return the innermost line of user code in an error's traceback.

    User code is outside this package (except for its shipped events), the standard library and installed packages. If
    there is none, return the first line outside this package, or None.
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
    """Return whether an error was raised directly by a function of this module."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__") == module


def caller() -> str:
    """Return the line of the code that called the caller's caller, skipping generated code."""
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


def _code(function: object) -> CodeType | None:
    while isinstance(function, partial):
        function = function.func
    if callable(function):
        function = inspect.unwrap(function)
    if not hasattr(function, "__code__"):
        function = inspect.getattr_static(type(function), "__call__", None)
    code = getattr(function, "__code__", None)
    return code if isinstance(code, CodeType) else None
