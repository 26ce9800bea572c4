"""Lets deleted and overwritten objects be garbage-collected.

For its dashboard, moto keeps a reference to every model object ever created: each message, each version of an item,
each overwritten S3 object. A consumer that updates 1,000 items per second would exhaust the memory within hours.
moto needs the S3 objects to close their files at the end of a mock, so these are tracked with weak references.
"""

from __future__ import annotations

from collections.abc import Iterator
from weakref import WeakSet

from moto.core.common_models import BaseModel
from moto.s3.models import FakeKey, FakeMultipart

from stream_app.local.moto_patches.patch import replace

_TRACKED = "instances_tracked"


class LiveInstances:
    """Replaces moto's list of instances. Holds weak references only."""

    def __init__(self) -> None:
        self._alive: WeakSet[BaseModel] = WeakSet()

    def append(self, instance: BaseModel) -> None:
        """Track a new instance."""
        self._alive.add(instance)

    def __iter__(self) -> Iterator[BaseModel]:
        return iter(list(self._alive))

    def __len__(self) -> int:
        return len(self._alive)


def _new(cls: type[BaseModel], *_: object, **__: object) -> BaseModel:
    instance = object.__new__(cls)
    if issubclass(cls, FakeKey | FakeMultipart):
        # moto assigns a new list at the end of each mock.
        if not isinstance(getattr(cls, _TRACKED), LiveInstances):
            setattr(cls, _TRACKED, LiveInstances())
        getattr(cls, _TRACKED).append(instance)
    return instance


def _close(self: FakeKey) -> None:
    self.dispose()


def apply() -> None:
    """Install the patch."""
    replace(BaseModel, "__new__", _new)
    # moto's finalizer warns about an object that was not closed, which is now normal for an overwritten object.
    replace(FakeKey, "__del__", _close)
