"""The public API: what it names, and its former names."""

from __future__ import annotations

import importlib

import pytest

from stream_app import api


def test_every_name_that_it_lists_is_there() -> None:
    for name in api.__all__:
        assert getattr(api, name) is not None


@pytest.mark.parametrize(
    ("former", "names"), [("event", ["Event", "Window", "Range"]), ("record", ["Batch"])]
)
def test_event_types_written_against_the_former_names_keep_working(former: str, names: list[str]) -> None:
    module = importlib.import_module(f"stream_app.{former}")
    for name in names:
        assert getattr(module, name) is getattr(api, name)


@pytest.mark.parametrize("former", ["event", "record"])
def test_a_former_module_has_all_that_it_had(former: str) -> None:
    old, new = (importlib.import_module(f"stream_app.{prefix}{former}") for prefix in ("", "model."))
    own = [name for name, value in vars(new).items() if getattr(value, "__module__", "") == new.__name__]
    assert own
    assert all(getattr(old, name) is getattr(new, name) for name in own if not name.startswith("_"))
