"""The event's detector: an anomaly score for each row, learnt as it goes."""

from __future__ import annotations

import numpy as np

from anomaly.detector import Detector
from stream_app.event import Event
from stream_app.record import Batch


def score(batch: Batch, event: Event, detector: Detector | None) -> Batch:
    """Add `score` (float, ≥ 0) and `anomaly` (bool). Without a detector both are absent."""
    if detector is None or not len(batch):
        return batch
    features = np.stack([batch[name].astype(np.float64) for name in event.features], axis=1)
    scores = detector.process_many(batch[event.key].tolist(), features)
    return batch.with_columns({"score": scores, "anomaly": scores >= detector.threshold})
