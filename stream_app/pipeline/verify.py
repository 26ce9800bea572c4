"""The event's own rules: a row that breaks one is parked with the names of those it breaks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.model.record import Batch, Code, Failure, Mask, Outcome
from stream_app.pipeline.registry import Codec
from stream_app.pipeline.user_code.error_isolation import call_isolated
from stream_app.pipeline.user_code.user_calls import ResultError

STAGE = "verify"
_BOOLEANS = (bool, np.bool_)


def verify(batch: Batch, codec: Codec) -> Outcome:
    """Rows that keep every rule pass. A rule that raises parks the rows that make it raise.

    A mask that is not boolean parks its rows too: None and numbers are not cast.
    """
    rules = codec.event.verify
    if rules is None or not len(batch):
        return Outcome(batch)
    checked, kept, failed = call_isolated(rules, batch, STAGE, codec.schema.fingerprint, as_mask)
    if not checked:
        return Outcome(kept, failed)
    checked = {name: _kept(mask) for name, mask in checked.items()}
    passed = np.logical_and.reduce(list(checked.values()))
    if passed.all():
        return Outcome(kept, failed)
    return Outcome(kept.take(passed), [*failed, *_broken(kept, ~passed, checked, codec)])


def as_mask(name: str, column: NDArray[Any]) -> Mask:
    """A rule's mask as it is used. Raises ResultError where it is not boolean: what is no boolean is not cast."""
    if column.dtype == np.bool_:
        return column
    values = column.tolist()
    if not len(column) or (column.dtype == object and all(type(value) in _BOOLEANS for value in values)):
        return column.astype(np.bool_)
    other = next(value for value in values if type(value) not in _BOOLEANS)
    kind = "None" if other is None else type(other).__name__
    raise ResultError(f"returned a mask for rule {name!r} that holds {kind}, expected booleans")


def _kept(mask: NDArray[Any]) -> NDArray[Any]:
    """A rule that was not returned for some of the rows (None) is one that they keep."""
    return mask if mask.dtype == np.bool_ else np.array([m is None or m for m in mask], dtype=np.bool_)


def _broken(batch: Batch, rows: Mask, checked: Mapping[str, Mask], codec: Codec) -> list[Failure]:
    """A failure for each of these rows; rows that break the same rules share the reason."""
    names = list(checked)
    broken = ~np.stack([mask[rows] for mask in checked.values()], axis=1)
    same, which = np.unique(broken, axis=0, return_inverse=True)
    reasons = ["; ".join(names[at] for at in np.flatnonzero(each).tolist()) for each in same]
    mark = codec.schema.fingerprint
    return [
        Failure(row, STAGE, Code.RULE_BROKEN, reasons[reason], batch.event, mark)
        for row, reason in zip(batch.rows[rows].tolist(), which.reshape(-1).tolist(), strict=True)
    ]
