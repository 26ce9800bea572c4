"""The examples in docstrings of the public API give the shown results."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

PUBLIC = (
    "anomaly",
    "stream_app.api",
    "stream_app.event",
    "stream_app.model",
    "stream_app.record",
    "stream_app.testing",
)


def modules() -> list[str]:
    """Return the public modules and the modules of the public packages."""
    found = []
    for name in PUBLIC:
        module = importlib.import_module(name)
        found.append(name)
        found += [
            one.name
            for one in pkgutil.walk_packages(getattr(module, "__path__", ()), prefix=f"{name}.")
            if not one.name.endswith("__main__")
        ]
    return found


@pytest.mark.parametrize("name", modules())
def test_the_examples_of_a_module_give_the_shown_results(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples() -> None:
    """Guards against the test above passing without examples."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [example for name in modules() for example in finder.find(importlib.import_module(name))]
    assert sum(len(one.examples) for one in found) >= 4
