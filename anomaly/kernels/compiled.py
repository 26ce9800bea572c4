"""Loops that must be compiled: one decorator, typed, whose result is kept on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """`function` as machine code, compiled at its first call.

    Without fast-math: an operation gives the same bits whatever stands around it, so scores do not depend on how
    rows are batched. The code is kept beside the module, so that the next process does not compile again.
    """
    return _compiled(function)


def inlined(function: F) -> F:
    """`compiled`, and put in place of each call: what is known there of its arguments then shapes its loops."""
    return _compiled(function, forceinline=True)


def _compiled(function: F, **more: bool) -> F:
    options: dict[str, Any] = {"error_model": "numpy", "fastmath": False, **more}
    try:
        return cast(F, numba.njit(cache=True, **options)(function))
    except RuntimeError:  # neither the package's folder nor a home can be written: compile in each process
        return cast(F, numba.njit(**options)(function))
