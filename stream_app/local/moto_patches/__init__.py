"""Patches for moto where its behavior differs from AWS, applied in-process for both `mock_aws` and the server.

Each module patches one behavior or a few related ones, states what AWS documents, and is covered by a test under
`tests/contracts`. The patches are written for moto 5.2. `apply` raises AttributeError if moto has renamed a patched
attribute.
"""

from __future__ import annotations

import threading

_lock = threading.Lock()
_applied = False


def apply() -> None:
    """Apply all patches, once per process. Takes about a second because it imports moto's services."""
    global _applied  # noqa: PLW0603 - a patch is of the process
    with _lock:
        if _applied:
            return
        from stream_app.local.moto_patches import (
            atomic,
            instance_tracking,
            method_cache,
            outage_hook,
            rules,
            transactions,
        )
        from stream_app.local.moto_patches.kinesis import iterators, listing, reading, resharding, writing
        from stream_app.local.moto_patches.sqs import queues

        for patch in (
            instance_tracking,
            iterators,
            reading,
            writing,
            resharding,
            listing,
            queues,
            rules,
            atomic,
            transactions,
            method_cache,
            outage_hook,
        ):
            patch.apply()
        _applied = True
