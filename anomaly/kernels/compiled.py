"""Typed decorators that compile functions with Numba and cache the machine code on disk."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compile a function to machine code at its first call.

    Without fast-math, an operation has the same result in any context, so scores do not depend on how rows are
    batched. The code is cached beside the module, so that later processes do not compile again.
    """
    return _compiled(function)


def inlined(function: F) -> F:
    """Compile a function and inline it into its callers, so that loops are optimized for constant arguments."""
    return _compiled(function, inline=True)


def _compiled(function: F, *, inline: bool = False) -> F:
    options = partial(numba.njit, error_model="numpy", fastmath=False, forceinline=inline)
    try:
        return cast("F", options(cache=True)(function))
    except RuntimeError:  # no writable folder for the cache: compile in each process
        return cast("F", options()(function))
