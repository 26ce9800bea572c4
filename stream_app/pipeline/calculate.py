"""The calculate stage: the event's own function adds columns."""

from __future__ import annotations

from anomaly.detector import AnyArray
from stream_app.model.record import Batch, Outcome
from stream_app.pipeline.registry import Codec
from stream_app.pipeline.user_code.column_names import field_name, stored_name
from stream_app.pipeline.user_code.declaration_checks import FLAG, HELPER_PREFIXES, RESERVED
from stream_app.pipeline.user_code.error_isolation import call_isolated
from stream_app.pipeline.user_code.user_calls import Accept, ResultError

STAGE = "calculate"


def calculate(batch: Batch, codec: Codec) -> Outcome:
    """Add the columns that `calculate` returns; rows on which it raises fail as CALCULATION_FAILED.

    A returned column must not have the name of a field of the schema or of a column that the pipeline adds.
    """
    function = codec.event.calculate
    if function is None or not len(batch):
        return Outcome(batch)
    columns, kept, failed = call_isolated(function, batch, STAGE, codec.schema.fingerprint, accepted(codec))
    return Outcome(kept.with_columns(columns), failed)


def accepted(codec: Codec) -> Accept:
    """What a column that `calculate` returned must be: raises ResultError for a name that is already in use."""
    fields = {field.name for field in codec.schema.fields}
    reserved = RESERVED | {FLAG} if codec.event.checks else RESERVED

    def accept(name: str, column: AnyArray) -> AnyArray:
        if name in fields:
            raise ResultError(f"returned column {name!r}, which is a field of the schema")
        if name in reserved or name.startswith(HELPER_PREFIXES):
            raise ResultError(f"returned column {name!r}, which the pipeline adds")
        bare = field_name(name, codec.event.name, ())
        if bare != name or stored_name(name, codec.event.name) in fields:
            raise ResultError(f"returned column {name!r}, which would be stored in one column with another")
        return column

    return accept
