"""A hash of the record's bytes as its id, for devices that send none (`Event(id=PAYLOAD)`)."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from stream_app.model.event import PAYLOAD, Event
from stream_app.model.record import Batch
from stream_app.model.records import Payloads

_BYTES = 16


def with_identity(batch: Batch, payloads: Payloads, event: Event) -> Batch:
    """Add the column `#payload` if the event declares `id=PAYLOAD`: a BLAKE2b hash, 32 hexadecimal digits.

    The hash covers the record's bytes as received, before decompression and including the envelope. A record sent
    again with another envelope id or time, or another time in its gzip header, is therefore a different event.
    `payloads` are those of all records of the call.
    """
    if event.id != PAYLOAD:
        return batch
    hashes = (blake2b(payloads.payload(row), digest_size=_BYTES).hexdigest() for row in batch.rows.tolist())
    return batch.with_columns({PAYLOAD: np.fromiter(hashes, dtype=object, count=len(batch))})
