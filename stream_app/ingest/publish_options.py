"""Options of `producer.publish`: destination, pace and clocks."""

from __future__ import annotations

import math
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING, Literal

from stream_app.aws.retry import Policy
from stream_app.ingest.envelope import Encode

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_kinesis import KinesisClient

Via = Literal["bus", "stream"]


@dataclass(frozen=True, slots=True)
class Clocks:
    """Clocks and random sources, which tests replace.

    `clock` returns monotonic seconds, `now` the current time, `new_id` the ID of an envelope. `pause` sleeps for some
    seconds; None waits on `stop`, so that setting it ends the pause.
    """

    clock: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    rng: Random = field(default_factory=Random)
    new_id: Callable[[], object] = uuid.uuid4
    pause: Callable[[float], object] | None = None


@dataclass(frozen=True, slots=True)
class Destination:
    """The event bus and the stream, with their clients. `region` and `account` are for envelopes."""

    events: EventBridgeClient
    kinesis: KinesisClient
    bus: str
    stream: str
    region: str = "us-east-1"
    account: str = "000000000000"


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """Options of `publish`.

    `via` "bus" sends each record by its own route. "stream" writes all records to the stream, 500 per request, for
    bulk loads; as PutRecords does not preserve order, a record that Kinesis rejects may then be stored after a later
    record of the same device, which never happens with "bus".

    `rate` is the maximum in records per second, `speed` the maximum as a multiple of the times in the data.
    `progress(n)` is called by one thread at a time with the number of records sent. Setting `stop` ends early.
    """

    via: Via = "bus"
    rate: float | None = None
    speed: float = math.inf
    encoders: Mapping[str, Encode] | None = None
    threads: int = 2
    retry: Policy = field(default_factory=Policy)
    progress: Callable[[int], None] | None = None
    stop: threading.Event | None = None
    clocks: Clocks = field(default_factory=Clocks)
