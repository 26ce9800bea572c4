"""Event types are discovered in the working directory, and all problems are reported together with their files."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream_app.errors import ConfigError
from stream_app.event_loading import discover, load_registry, schema_files
from stream_app.model.event import Event
from tests.distributions import install
from tests.samples import schema

MODULE = """
from stream_app.api import Event
EVENT = Event(name="{name}", key="{key}", required=("{key}",))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "events").mkdir()
    (tmp_path / "schemas").mkdir()
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.startswith("events."):
            del sys.modules[name]


def write(folder: Path, name: str, module: str = "", raw: str | None = None) -> None:
    """Write the module and the schema of an event."""
    (folder / "events" / f"{name}.py").write_text(module or MODULE.format(name=name, key="device"))
    if raw != "":
        (folder / "schemas" / f"{name}.avsc").write_text(raw or json.dumps(schema(name)))


def problems() -> dict[str, str]:
    """Return the problems of the event types with their hints."""
    with pytest.raises(ConfigError) as caught:
        load_registry()
    assert all(problem.hint for problem in caught.value.problems)
    return dict(caught.value.problems)


def test_custom_events_are_discovered_in_addition_to_the_shipped_ones(folder: Path) -> None:
    shipped = set(discover())
    assert {"air_quality", "parcel"} <= shipped
    write(folder, "mine")
    (folder / "events" / "_helpers.py").write_text("raise RuntimeError('not an event')")
    assert set(discover()) == {*shipped, "mine"}
    assert set(load_registry().codecs) == {*shipped, "mine"}


def test_a_custom_event_overrides_a_shipped_one(folder: Path) -> None:
    write(folder, "parcel")
    assert discover()["parcel"].key == "device"
    registry = load_registry()
    assert registry.codecs["parcel"].schema.fields[1].name == "device"


def test_without_a_custom_folder_only_the_shipped_events_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    assert {"air_quality", "parcel"} <= set(discover())


def test_all_problems_are_reported_together_with_their_files(folder: Path) -> None:
    write(folder, "good")
    write(folder, "none", "EVENT = 5")
    write(folder, "syntax", "def broken(:")
    write(folder, "raises", "raise KeyError('x')")
    write(folder, "leaves", "import sys; sys.exit(3)")
    write(folder, "twice", MODULE.format(name="good", key="device"))
    write(folder, "lonely", raw="")
    write(folder, "text", raw="{ not JSON")
    write(folder, "number", raw="5")
    write(folder, "typo", MODULE.format(name="typo", key="devise"))
    write(folder, "past")
    (folder / "schemas" / "past.v1.avsc").write_text('{"type": "record"}')
    (folder / "schemas" / "past.v2.avsc").write_bytes(b"\xff")
    found = problems()
    for words in (
        "events/none.py declares no EVENT",
        "events/syntax.py cannot be imported: SyntaxError",
        "events/raises.py cannot be imported: KeyError: 'x'",
        "events/leaves.py cannot be imported: SystemExit: 3",
        "event 'good' is declared twice",
        "no schema for event 'lonely'",
        "schemas/text.avsc cannot be read",
        "schemas/number.avsc is not a valid Avro schema",
        "event 'typo': key names 'devise'",
        "schemas/past.v2.avsc cannot be read",
    ):
        assert [what for what in found if what.startswith(words)], words
    assert not [what for what in found if "good.avsc" in what]


def test_an_invalid_earlier_schema_version_is_reported(folder: Path) -> None:
    write(folder, "past")
    (folder / "schemas" / "past.v1.avsc").write_text('{"type": "record"}')
    assert any(what.startswith("schemas/past.v1.avsc is not a valid Avro schema") for what in problems())


def test_a_module_is_discovered_after_its_error_was_fixed(folder: Path) -> None:
    write(folder, "mine", "raise RuntimeError")
    with pytest.raises(ConfigError):
        discover()
    assert "events.mine" not in sys.modules
    write(folder, "mine")
    assert "mine" in discover()


def test_schema_versions_are_ordered_from_the_current_to_the_oldest(folder: Path) -> None:
    for name in ("mine", "mine.v2", "mine.v10", "mine.v1", "mine.v", "minefield"):
        (folder / "schemas" / f"{name}.avsc").write_text("{}")
    names = [path.name for path in schema_files("mine")]
    assert names == ["mine.avsc", "mine.v10.avsc", "mine.v2.avsc", "mine.v1.avsc", "mine.v.avsc"]


def test_a_missing_schema_is_reported_with_an_example() -> None:
    with pytest.raises(ConfigError) as caught:
        schema_files("nothing")
    assert caught.value.problems[0].hint == "write schemas/nothing.avsc"


def test_an_event_is_immutable() -> None:
    with pytest.raises(AttributeError):
        Event(name="a", key="b").name = "c"  # type: ignore[misc]


def test_packages_are_discovered(folder: Path) -> None:
    (folder / "events" / "mine").mkdir()
    (folder / "events" / "data").mkdir()
    (folder / "events" / "mine" / "columns.py").write_text("KEY = 'device'\n")
    module = (
        'from stream_app.api import Event\nfrom .columns import KEY\nEVENT = Event(name="mine", key=KEY)\n'
    )
    (folder / "events" / "mine" / "__init__.py").write_text(module)
    assert discover()["mine"].key == "device"
    write(folder, "mine")
    with pytest.raises(ConfigError) as caught:
        discover()
    assert [problem.what for problem in caught.value.problems] == [
        "events/mine.py and events/mine/__init__.py are the same module"
    ]


def test_installed_event_types_are_discovered_with_their_schemas(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = install(folder, monkeypatch, "meters", "[stream_app.events]\nmine = meters_mine:EVENT\n")
    (site / "meters_mine.py").write_text(MODULE.format(name="mine", key="device"))
    (site / "schemas").mkdir()
    (site / "schemas" / "mine.avsc").write_text(json.dumps(schema("mine")))
    assert schema_files("mine") == [site / "schemas" / "mine.avsc"]
    assert "mine" in load_registry().codecs
    write(folder, "mine")
    assert (
        "event 'mine' is declared twice: events/mine.py and distribution meters (mine = meters_mine:EVENT)"
        in problems()
    )


def test_an_invalid_entry_point_is_reported_with_its_distribution(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = install(
        folder, monkeypatch, "broken", "[stream_app.events]\na = broken_a:EVENT\nb = broken_b\nc = no_such\n"
    )
    (site / "broken_a.py").write_text("raise RuntimeError('no')")
    (site / "broken_b.py").write_text("")
    assert set(problems()) == {
        (
            "distribution broken (a = broken_a:EVENT): entry point of stream_app.events cannot be loaded: "
            "RuntimeError: no"
        ),
        "distribution broken (b = broken_b) declares no EVENT",
        (
            "distribution broken (c = no_such): entry point of stream_app.events cannot be loaded: "
            "ModuleNotFoundError: No module named 'no_such'"
        ),
    }
