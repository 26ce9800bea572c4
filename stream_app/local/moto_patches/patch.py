"""Functions that replace or add an attribute of a moto class or module."""

from __future__ import annotations

from types import ModuleType


def replace(owner: type | ModuleType, name: str, value: object) -> None:
    """Replace the attribute `name` with `value`. Raises AttributeError if the attribute does not exist.

    The check detects a new moto version that renamed the attribute, which would otherwise disable the patch silently.
    """
    getattr(owner, name)
    setattr(owner, name, value)


def add(owner: type, name: str, value: object) -> None:
    """Add an attribute that this moto version lacks. Does nothing if the attribute exists."""
    if not hasattr(owner, name):
        setattr(owner, name, value)
