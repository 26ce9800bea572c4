"""The public API: its names, and the deprecated names that still work."""

from __future__ import annotations

import importlib

import pytest

from stream_app import api


def test_every_listed_name_exists() -> None:
    for name in api.__all__:
        assert getattr(api, name) is not None


@pytest.mark.parametrize(
    ("former", "names"), [("event", ["Event", "Window", "Range"]), ("record", ["Batch"])]
)
def test_event_types_that_use_deprecated_names_still_work(former: str, names: list[str]) -> None:
    module = importlib.import_module(f"stream_app.{former}")
    for name in names:
        assert getattr(module, name) is getattr(api, name)


@pytest.mark.parametrize("former", ["event", "record"])
def test_a_deprecated_module_exports_all_its_names(former: str) -> None:
    old, new = (importlib.import_module(f"stream_app.{prefix}{former}") for prefix in ("", "model."))
    own = [name for name, value in vars(new).items() if getattr(value, "__module__", "") == new.__name__]
    assert own
    assert all(getattr(old, name) is getattr(new, name) for name in own if not name.startswith("_"))
