"""What moto gets wrong for a consumer, corrected inside this process, for `mock_aws` and the server alike.

Each module corrects one thing or a few that belong together, says what AWS documents, and is held by a test under
`tests/contracts`. They are written for moto 5.2; a version that renamed what they correct makes `apply` raise.
"""

from __future__ import annotations

import threading

_lock = threading.Lock()
_applied = False


def apply() -> None:
    """Put all corrections in place, once per process. Takes a second, because it imports moto's services."""
    global _applied
    with _lock:
        if _applied:
            return
        from stream_app.local.moto_patches import atomic, costs, memory, outage_hook, rules, transactions
        from stream_app.local.moto_patches.kinesis import iterators, listing, reading, resharding, writing
        from stream_app.local.moto_patches.sqs import queues

        for correction in (
            memory,
            iterators,
            reading,
            writing,
            resharding,
            listing,
            queues,
            rules,
            atomic,
            transactions,
            costs,
            outage_hook,
        ):
            correction.apply()
        _applied = True
