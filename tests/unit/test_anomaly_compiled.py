"""Compiled functions work on read-only file systems and agree with the Python functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import pytest

from anomaly.kernels.compiled import compiled


def double(x: float) -> float:
    return 2.0 * x


def test_functions_are_compiled_without_a_cache_if_it_is_not_writable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bool] = []

    def njit(cache: bool = False, **options: Any) -> Callable[[Any], Any]:
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function 'double': no locator available")
        return lambda function: function

    monkeypatch.setattr(numba, "njit", njit)
    assert compiled(double)(4.0) == 8.0
    assert asked == [True, False]


def test_a_compiled_function_returns_the_same_result() -> None:
    assert compiled(double)(4.0) == double(4.0)
