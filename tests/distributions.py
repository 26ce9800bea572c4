"""Installed distributions with entry points, in the layout that pip creates."""

from __future__ import annotations

from pathlib import Path

import pytest


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, entry_points: str) -> Path:
    """Create a distribution in a folder on the import path."""
    site = folder / f"site-{name}"
    (site / f"{name}-1.0.dist-info").mkdir(parents=True)
    (site / f"{name}-1.0.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    )
    (site / f"{name}-1.0.dist-info" / "entry_points.txt").write_text(entry_points)
    monkeypatch.syspath_prepend(str(site))
    return site
