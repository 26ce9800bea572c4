"""Compiled functions work where nothing can be written, and are the same functions uncompiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import pytest

from anomaly.kernels.compiled import compiled


def double(x: float) -> float:
    return 2.0 * x


def test_where_no_code_can_be_kept_it_is_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def njit(cache: bool = False, **options: Any) -> Callable[[Any], Any]:
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function 'double': no locator available")
        return lambda function: function

    monkeypatch.setattr(numba, "njit", njit)
    assert compiled(double)(4.0) == 8.0
    assert asked == [True, False]


def test_a_compiled_function_is_the_function() -> None:
    assert compiled(double)(4.0) == double(4.0)
