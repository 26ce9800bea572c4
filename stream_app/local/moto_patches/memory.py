"""What was deleted or overwritten is forgotten.

moto keeps a reference to every object of its models that was ever made, for its dashboard: each message, each version
of an item, each overwritten S3 object. A consumer that updates 1,000 items a second would fill the memory in hours.
S3's are needed to close their files at the end, and are kept for as long as someone else holds them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

from moto.core.common_models import BaseModel
from moto.s3.models import FakeKey, FakeMultipart

from stream_app.local.moto_patches.patch import replace


class Living:
    """Stands in for moto's list of instances; holds none of them alive."""

    def __init__(self) -> None:
        self._alive: WeakSet[Any] = WeakSet()

    def append(self, instance: Any) -> None:
        """Notice a new one."""
        self._alive.add(instance)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._alive))

    def __len__(self) -> int:
        return len(self._alive)


def _new(cls: type[BaseModel], *_: Any, **__: Any) -> BaseModel:
    instance = object.__new__(cls)
    if issubclass(cls, FakeKey | FakeMultipart):
        owner: Any = cls
        # moto puts a new list in its place at the end of each mock.
        if not isinstance(owner.instances_tracked, Living):
            owner.instances_tracked = Living()
        owner.instances_tracked.append(instance)
    return instance


def _close(self: FakeKey) -> None:
    self.dispose()


def apply() -> None:
    """Put the correction in place."""
    replace(BaseModel, "__new__", _new)
    # To be dropped unclosed is now how an overwritten object ends, and no reason for a warning.
    replace(FakeKey, "__del__", _close)
