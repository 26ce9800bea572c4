"""The event's own calculation: further columns for each row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from stream_app.pipeline.checks import FLAG, HELPERS, RESERVED
from stream_app.pipeline.column_names import colliding, stored_name
from stream_app.pipeline.guard import guarded
from stream_app.pipeline.registry import Codec
from stream_app.record import Batch, Outcome

STAGE = "calculate"


def calculate(batch: Batch, codec: Codec) -> Outcome:
    """Add the columns that `calculate` returns; rows on which it raises are CALCULATION_FAILED.

    A column of the schema that it returns is replaced; those that the pipeline adds are not for it to return.
    """
    function = codec.event.calculate
    reserved = {*RESERVED, FLAG} if codec.event.checks else RESERVED
    if function is None or not len(batch):
        return Outcome(batch)

    def checked(part: Batch) -> Mapping[str, NDArray[Any]]:
        columns = function(part)
        for name in columns:
            if name in reserved or name.startswith(HELPERS):
                raise ValueError(f"column {name!r} is the pipeline's own")
        for name in colliding({*part.columns, *columns}, part.event):
            raise ValueError(
                f"columns {name!r} and {stored_name(name, part.event)!r} would be stored in one column"
            )
        return columns

    columns, kept, failed = guarded(checked, batch, STAGE, codec.schema.fingerprint)
    return Outcome(kept.with_columns(columns), failed)
