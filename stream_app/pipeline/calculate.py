"""The event's own calculation: further columns for each row."""

from __future__ import annotations

from stream_app.pipeline.guard import guarded
from stream_app.pipeline.registry import Codec
from stream_app.record import Batch, Outcome

STAGE = "calculate"


def calculate(batch: Batch, codec: Codec) -> Outcome:
    """Add the columns that `calculate` returns; rows on which it raises are CALCULATION_FAILED."""
    function = codec.event.calculate
    if function is None or not len(batch):
        return Outcome(batch)
    columns, kept, failed = guarded(function, batch, STAGE, codec.schema.fingerprint)
    return Outcome(kept.with_columns(columns), failed)
