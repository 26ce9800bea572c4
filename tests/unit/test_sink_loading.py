"""The sinks that `app.sinks` names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stream_app.errors import ConfigError
from stream_app.settings import Settings
from stream_app.sinks.loading import load_sinks
from tests import samples
from tests.distributions import install

SINK = """
class MySink:
    def __init__(self, settings, client):
        self.bucket, self.s3 = settings.bucket, client("s3")

    def write(self, segment):
        return ()

    def close(self):
        pass

SINK = MySink
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in which the program is started."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sinks").mkdir()
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("sinks.")]:
        del sys.modules[name]


def load(sinks: str = "", **values: Any) -> list[str]:
    """The types of the sinks, in order."""
    settings = Settings("app", "devices", bucket="b", sinks=sinks, **values)
    return [type(sink).__name__ for sink in load_sinks(settings, samples.registry(), lambda service: service)]


def problems(sinks: str, **values: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load(sinks, **values)
    return dict(caught.value.problems)


def test_without_the_property_the_default_sinks_are_loaded(folder: Path) -> None:
    (folder / "sinks" / "broken.py").write_text("raise RuntimeError")
    assert load() == ["ParquetSink", "ManifestSink"]
    assert load(latest_table="latest") == ["LatestSink", "ParquetSink", "ManifestSink"]
    assert load("s3", latest_table="latest") == ["ParquetSink", "ManifestSink"]


def test_the_files_and_the_manifest_come_after_every_other_sink(folder: Path) -> None:
    (folder / "sinks" / "mine.py").write_text(SINK)
    assert load("s3, mine,dynamodb", latest_table="t") == [
        "MySink",
        "LatestSink",
        "ParquetSink",
        "ManifestSink",
    ]


def test_installed_sinks_are_found_by_their_entry_points(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = install(
        folder, monkeypatch, "sinker", "[stream_app.sinks]\nmine = sinker_mine:MySink\nwhole = sinker_mine\n"
    )
    (site / "sinker_mine.py").write_text(SINK)
    assert load("s3, mine, whole") == ["MySink", "MySink", "ParquetSink", "ManifestSink"]
    (folder / "sinks" / "mine.py").write_text(SINK)
    what = "sink 'mine' is declared twice: sinks/mine.py and distribution sinker (mine = sinker_mine:MySink)"
    assert problems("s3, mine") == {what: "rename one of them"}


def test_a_broken_entry_point_names_its_distribution(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(folder, monkeypatch, "broken", "[stream_app.sinks]\nmine = no_such_module:SINK\n")
    found = problems("s3, mine")
    assert (
        "distribution broken (mine = no_such_module:SINK): entry point of stream_app.sinks cannot be loaded: "
        in next(iter(found))
    )


def test_all_unknown_names_are_reported_together(folder: Path) -> None:
    (folder / "sinks" / "mine.py").write_text(SINK)
    (folder / "sinks" / "s3.py").write_text(SINK)
    (folder / "sinks" / "empty.py").write_text("")
    found = problems("dynamodb, mine, mine, other, empty")
    assert found == {
        "app.sinks names 'mine' more than once": "name each sink once",
        "app.sinks does not name 's3'": (
            "add s3: checkpoints, audits and corrections rely on the files and manifests on S3"
        ),
        "app.sinks names 'dynamodb', but app.latest_table is not set": "add app.latest_table, or remove the sink",
        "sink 's3' is declared twice: stream_app and sinks/s3.py": "rename one of them",
        "app.sinks names the unknown sink 'other'": "known are dynamodb, empty, mine, s3",
        "sinks/empty.py declares no SINK": (
            "add SINK = …, a function of the settings and a client factory that returns the sink"
        ),
    }


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            "def SINK(settings): ...",
            "sink 'mine' cannot be created: TypeError: SINK() takes 1 positional argument",
        ),
        (
            "def SINK(settings, client): return 5",
            "sink 'mine' is an object of type int, without write or close",
        ),
        (
            (
                "from stream_app.api import ConfigError, Problem\n"
                "def SINK(settings, client): raise ConfigError([Problem('MY_TABLE is not set', 'set it')])"
            ),
            "MY_TABLE is not set",
        ),
    ],
)
def test_a_factory_that_fails_is_a_problem(folder: Path, text: str, what: str) -> None:
    (folder / "sinks" / "mine.py").write_text(text)
    assert next(iter(problems("s3, mine"))).startswith(what)
