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
    return _compiled(function, False)


def compiled_without_nan(function: F) -> F:
    """`compiled` of a function that no NaN reaches and that tells no -0 from 0: a least value is then found with
    vector instructions, and is the same in whatever order they look."""
    return _compiled(function, {"nnan", "nsz"})


def _compiled(function: F, fastmath: bool | set[str]) -> F:
    options: dict[str, Any] = {"error_model": "numpy", "fastmath": fastmath}
    try:
        return cast(F, numba.njit(cache=True, **options)(function))
    except RuntimeError:  # neither the package's folder nor a home can be written: compile in each process
        return cast(F, numba.njit(**options)(function))
