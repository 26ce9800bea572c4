"""The public API: what event types, detectors, sinks and their tests import. Everything else may change.

from stream_app.api import Event, Range

EVENT = Event(name="meter", key="meter", id="id", checks=(Range("power", 0.0, 20_000.0),))
"""

from __future__ import annotations

from anomaly.detector import Detector, DetectorFactory
from stream_app.aws.clients import ClientFactory
from stream_app.errors import ConfigError, Problem, TransientError
from stream_app.model.event import (
    PAYLOAD,
    Calculate,
    Check,
    Correct,
    Event,
    Range,
    Rate,
    Stuck,
    Verify,
    Window,
    as_missing,
)
from stream_app.model.record import Batch, Code, Failure, Mask, Outcome, Position, Record
from stream_app.model.segment import Segment, Sink
from stream_app.settings import Settings
from stream_app.sinks.factory import SinkFactory

__all__ = [
    "PAYLOAD",
    "Batch",
    "Calculate",
    "Check",
    "ClientFactory",
    "Code",
    "ConfigError",
    "Correct",
    "Detector",
    "DetectorFactory",
    "Event",
    "Failure",
    "Mask",
    "Outcome",
    "Position",
    "Problem",
    "Range",
    "Rate",
    "Record",
    "Segment",
    "Settings",
    "Sink",
    "SinkFactory",
    "Stuck",
    "TransientError",
    "Verify",
    "Window",
    "as_missing",
]
