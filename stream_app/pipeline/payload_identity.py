"""A hash of a record's bytes as its identity, for events whose devices send none (`Event(id=PAYLOAD)`)."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from stream_app.model.event import PAYLOAD, Event
from stream_app.model.record import Batch
from stream_app.model.records import Payloads

_BYTES = 16


def with_identity(batch: Batch, payloads: Payloads, event: Event) -> Batch:
    """Add the column by which repeats are known where the event asks for it: 32 hexadecimal digits a row.

    Hashed are the record's bytes as they came, compressed or not, envelope included: what was sent again with another
    id or time in its envelope, or packed anew with another time in gzip's header, is another event. `payloads` are of
    all records of the call.
    """
    if event.id != PAYLOAD:
        return batch
    hashes = (blake2b(payloads.payload(row), digest_size=_BYTES).hexdigest() for row in batch.rows.tolist())
    return batch.with_columns({PAYLOAD: np.fromiter(hashes, dtype=object, count=len(batch))})
