"""Caches the list of a handler's methods, which moto recomputes for every request."""

from __future__ import annotations

from functools import lru_cache

from moto.core import responses, utils
from moto.core.utils import method_names_from_class

from stream_app.local.moto_patches.patch import replace


@lru_cache(maxsize=1_024)
def _method_names(handler: type) -> frozenset[str]:
    return frozenset(method_names_from_class(handler))


def apply() -> None:
    """Install the patch. Must run after all patches that add methods to a handler."""
    replace(responses, "method_names_from_class", _method_names)
    replace(utils, "method_names_from_class", _method_names)
