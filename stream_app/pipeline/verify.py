"""The event's own rules: a row that breaks one is parked with the names of those it breaks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.pipeline.guard import guarded
from stream_app.pipeline.registry import Codec
from stream_app.record import Batch, Code, Failure, Outcome

STAGE = "verify"


def verify(batch: Batch, codec: Codec) -> Outcome:
    """Rows that keep every rule pass. A rule that raises parks the rows that make it raise."""
    rules = codec.event.verify
    if rules is None or not len(batch):
        return Outcome(batch)

    def masks(part: Batch) -> Mapping[str, NDArray[Any]]:
        return {name: np.asarray(mask, dtype=np.bool_) for name, mask in rules(part).items()}

    checked, kept, failed = guarded(masks, batch, STAGE, codec.schema.fingerprint)
    if not checked:
        return Outcome(kept, failed)
    checked = {name: _kept(mask) for name, mask in checked.items()}
    passed = np.logical_and.reduce(list(checked.values()))
    broken = [_failure(kept, at, checked, codec) for at in np.flatnonzero(~passed).tolist()]
    return Outcome(kept.take(passed) if broken else kept, [*failed, *broken])


def _kept(mask: NDArray[Any]) -> NDArray[Any]:
    """A rule that was not returned for some of the rows (None) is one that they keep."""
    return mask if mask.dtype == np.bool_ else np.array([m is None or m for m in mask], dtype=np.bool_)


def _failure(batch: Batch, at: int, checked: Mapping[str, NDArray[Any]], codec: Codec) -> Failure:
    reason = "; ".join(name for name, mask in checked.items() if not mask[at])
    return Failure(
        int(batch.rows[at]), STAGE, Code.RULE_BROKEN, reason, batch.event, codec.schema.fingerprint
    )
