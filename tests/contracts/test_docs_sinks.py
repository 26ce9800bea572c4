"""The examples of docs/sinks.md work as they are written."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stream_app.settings import Settings, parse_properties
from stream_app.sinks.loading import load_sinks
from tests import samples

_PAGE = Path(__file__).parents[2] / "docs" / "sinks.md"


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", _PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_example_sink_satisfies_the_sink_contract(aws: Callable[[str], Any]) -> None:
    names: dict[str, Any] = {"__name__": "docs"}
    blocks = _blocks("python")
    assert len(blocks) == 2
    exec(compile("\n".join(blocks), str(_PAGE), "exec"), names)
    names["test_anomalies"](aws)


def test_the_property_selects_the_sink(
    aws: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sinks").mkdir()
    (tmp_path / "sinks" / "anomalies.py").write_text(_blocks("python")[0])
    (properties,) = _blocks("properties")
    named = {
        "applicationName": "app",
        "streamName": "devices",
        "app.bucket": "b",
        **parse_properties(properties),
    }
    try:
        sinks = load_sinks(Settings.load({}, named), samples.registry(), aws)
    finally:
        sys.modules.pop("sinks.anomalies", None)
    assert [type(sink).__name__ for sink in sinks] == ["Anomalies", "ParquetSink", "ManifestSink"]
