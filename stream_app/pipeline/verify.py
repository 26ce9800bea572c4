"""The verify stage: the event's own rules; a row that breaks a rule fails with the rule's name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from anomaly.detector import AnyArray
from stream_app.model.record import Batch, Code, Failure, Mask, Outcome
from stream_app.pipeline.registry import Codec
from stream_app.pipeline.user_code.error_isolation import call_isolated
from stream_app.pipeline.user_code.user_calls import ResultError

STAGE = "verify"
_BOOLEANS = (bool, np.bool_)


def verify(batch: Batch, codec: Codec) -> Outcome:
    """Pass the rows that satisfy every rule; the others fail as RULE_BROKEN, with the names of the broken rules.

    Rows on which a rule raises, or for which its mask is not boolean, fail too: None and numbers are not cast.
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


def as_mask(name: str, column: AnyArray) -> Mask:
    """Return a rule's mask as a boolean array. Raises ResultError if a value is not boolean."""
    if column.dtype == np.bool_:
        return column
    values = column.tolist()
    if not len(column) or (column.dtype == object and all(type(value) in _BOOLEANS for value in values)):
        return column.astype(np.bool_)
    other = next(value for value in values if type(value) not in _BOOLEANS)
    kind = "None" if other is None else type(other).__name__
    raise ResultError(f"returned a mask for rule {name!r} that holds {kind}, expected booleans")


def _kept(mask: AnyArray) -> AnyArray:
    """Treat a rule that was not returned for some rows (None) as satisfied by them."""
    return mask if mask.dtype == np.bool_ else np.array([m is None or m for m in mask], dtype=np.bool_)


def _broken(batch: Batch, rows: Mask, checked: Mapping[str, Mask], codec: Codec) -> list[Failure]:
    """Return a failure for each of these rows; rows that break the same rules share the reason."""
    names = list(checked)
    broken = ~np.stack([mask[rows] for mask in checked.values()], axis=1)
    same, which = np.unique(broken, axis=0, return_inverse=True)
    reasons = ["; ".join(names[at] for at in np.flatnonzero(each).tolist()) for each in same]
    fingerprint = codec.schema.fingerprint
    return [
        Failure(row, STAGE, Code.RULE_BROKEN, reasons[reason], batch.event, fingerprint)
        for row, reason in zip(batch.rows[rows].tolist(), which.reshape(-1).tolist(), strict=True)
    ]
