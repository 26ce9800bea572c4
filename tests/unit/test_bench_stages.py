"""The profile of the benchmark skips functions that do not exist; in this checkout, all of them do."""

from __future__ import annotations

import importlib
from functools import reduce

import pytest

from tests.bench.consumer.stages import POINTS


@pytest.mark.parametrize(("module", "attribute"), [(module, attribute) for module, attribute, _ in POINTS])
def test_the_functions_that_are_profiled_exist(module: str, attribute: str) -> None:
    assert callable(reduce(getattr, attribute.split("."), importlib.import_module(module)))
