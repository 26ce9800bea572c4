"""Where the files that travel with the application are: schemas, properties, infra template, data."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def shipped(name: str) -> Path:
    """The folder `name` ("schemas", "properties", "infra"): inside the wheel, or at the top of a checkout."""
    inside = _PACKAGE / "_shipped" / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def search_path(name: str) -> list[Path]:
    """The user's own folder `name` beside which the program was started, then the shipped one."""
    own = Path.cwd() / name
    folders = [own, shipped(name)] if own.is_dir() else [shipped(name)]
    return list(dict.fromkeys(folder.resolve() for folder in folders))
