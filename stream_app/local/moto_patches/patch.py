"""How a correction takes hold: a named attribute of one of moto's classes or modules is replaced."""

from __future__ import annotations

from types import ModuleType
from typing import Any


def replace(owner: type | ModuleType, name: str, value: Any) -> None:
    """Put `value` in the place of the attribute `name`. Raises AttributeError when there is none to correct.

    A new version of moto that renamed what we correct is thereby noticed at once, and not by a wrong answer.
    """
    getattr(owner, name)
    setattr(owner, name, value)


def add(owner: type, name: str, value: Any) -> None:
    """Give `owner` an attribute that this version of moto lacks; one that it has since gained is left alone."""
    if not hasattr(owner, name):
        setattr(owner, name, value)
