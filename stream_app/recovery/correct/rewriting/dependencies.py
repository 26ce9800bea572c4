"""What the correction of files needs from outside, and the state that a batch of corrections shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stream_app.model.record import Position
from stream_app.pipeline.registry import Registry
from stream_app.recovery.correct.calculation.payload import MayRead, PayloadSource
from stream_app.recovery.correct.history import History
from stream_app.recovery.correct.rewriting.files import EventFiles
from stream_app.recovery.correct.rewriting.latest import CorrectLatest

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What corrections read and write. `now_ms` is the clock."""

    s3: S3Client
    bucket: str
    registry: Registry
    history: History
    payloads: PayloadSource
    latest: CorrectLatest
    max_bytes: int
    now_ms: Callable[[], int]


@dataclass(frozen=True, slots=True)
class BatchState:
    """The state that a batch of corrections shares. Threads may share it.

    `before` holds the values replaced by corrections that are not recorded in the history yet. `decided` holds the
    positions that were corrected or cannot be corrected.
    """

    files: EventFiles
    may_read: MayRead
    before: dict[Position, Mapping[str, object]] = field(default_factory=dict)
    decided: set[Position] = field(default_factory=set)
