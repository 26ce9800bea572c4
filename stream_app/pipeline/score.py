"""The event's detector: an anomaly score for each row, learnt as it goes."""

from __future__ import annotations

import numpy as np

from anomaly.detector import Detector
from anomaly.judgement import Explaining, alerts_explained
from stream_app.event import Event
from stream_app.record import Batch

EXPLANATION = "explanation"


def score(batch: Batch, event: Event, detector: Detector | None) -> Batch:
    """Add `score` (float, ≥ 0) and `anomaly` (bool). Without a detector both are absent.

    A detector that can say why adds `explanation`: a dict for each anomaly, else None. It is for alerts, not stored.
    """
    if detector is None or not len(batch):
        return batch
    features = np.stack([batch[name].astype(np.float64) for name in event.features], axis=1)
    keys = batch[event.key].tolist()
    times = batch["time"] if "time" in batch and batch["time"].dtype.kind == "M" else None
    if not isinstance(detector, Explaining):
        scores = detector.process_many(keys, features, times)
        return batch.with_columns({"score": scores, "anomaly": scores >= detector.threshold})
    judged = detector.judge_many(keys, features, times)
    return batch.with_columns(
        {
            "score": judged.scores,
            "anomaly": judged.scores >= detector.threshold,
            EXPLANATION: alerts_explained(detector, judged),
        }
    )
