"""Helpers that build columns and batches of readings from plain values."""

from __future__ import annotations

from typing import Any

import numpy as np

from stream_app.model.record import Batch
from tests.samples import HOUR, START


def texts(values: Any) -> np.ndarray[Any, Any]:
    return np.array(list(values), dtype=object)


def batch(**columns: Any) -> Batch:
    arrays = {name.replace("__", "."): np.asarray(column) for name, column in columns.items()}
    return Batch("reading", arrays, np.arange(len(next(iter(arrays.values())))))


def times(hours: Any) -> np.ndarray[Any, Any]:
    return np.array([START + int(hour * HOUR) for hour in hours], dtype="datetime64[ms]")
