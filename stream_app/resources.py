"""Locations of the files shipped with the application: schemas, properties, infrastructure template, data."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def shipped(name: str) -> Path:
    """Return the folder `name` ("schemas", "properties", "infra") of the wheel or of the source checkout."""
    inside = _PACKAGE / "_shipped" / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def search_path(name: str) -> list[Path]:
    """Return the folders to search: the folder `name` in the working directory, then the shipped one."""
    own = Path.cwd() / name
    folders = [own, shipped(name)] if own.is_dir() else [shipped(name)]
    return list(dict.fromkeys(folder.resolve() for folder in folders))
