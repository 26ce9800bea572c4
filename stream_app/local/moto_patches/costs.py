"""What moto finds out anew for every request, and which never changes."""

from __future__ import annotations

from functools import lru_cache

from moto.core import responses, utils
from moto.core.utils import method_names_from_class

from stream_app.local.moto_patches.patch import replace


@lru_cache(maxsize=1_024)
def _method_names(handler: type) -> frozenset[str]:
    return frozenset(method_names_from_class(handler))


def apply() -> None:
    """Put the correction in place; after those that give a handler more methods."""
    replace(responses, "method_names_from_class", _method_names)
    replace(utils, "method_names_from_class", _method_names)
