"""What a user declares: one event type, in one module beside its Avro schema."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.detector import DetectorFactory
from stream_app.model.record import Batch, Mask
from stream_app.source_lines import caller

Verify = Callable[[Batch], Mapping[str, Mask]]
Calculate = Callable[[Batch], Mapping[str, NDArray[Any]]]
Correct = Callable[[Batch], Mapping[str, NDArray[Any]]]


@dataclass(frozen=True, slots=True)
class Window:
    """A device's last values on a regular grid of time, for `calculate`.

    Adds a column `window.<field>` of shape (n, size) for each field: [:, 0] is the row's own value, [:, j] the
    value j steps before it, NaN where none was seen. A late reading takes its own place on the grid.
    """

    fields: tuple[str, ...]
    size: int
    step: timedelta = timedelta(hours=1)
    time: str = "time"


@dataclass(frozen=True, slots=True)
class Range:
    """Flags a value below `low` or above `high`, in the field's unit. A missing value is never flagged."""

    field: str
    low: float = -math.inf
    high: float = math.inf

    @property
    def name(self) -> str:
        """What an alert says of it."""
        return f"{self.field} is outside {self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True)
class Rate:
    """Flags a value that differs by more than `most` from the device's last one.

    After a pause longer than `per` it may differ by so much more. Compared is the last value that neither this
    nor a Range of the same field flagged; a reading that is late is not compared.
    """

    field: str
    most: float
    per: timedelta = timedelta(hours=1)
    time: str = "time"

    @property
    def name(self) -> str:
        """What an alert says of it."""
        return f"{self.field} changes by more than {self.most:g} in {self.per}"


@dataclass(frozen=True, slots=True)
class Stuck:
    """Flags a value from the time on that a device sends it `times` times in a row, but for those of `besides`.

    A missing value neither ends the row nor counts.
    """

    field: str
    times: int
    besides: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """What an alert says of it."""
        return f"{self.field} is the same {self.times} times in a row"


Check = Range | Rate | Stuck

PAYLOAD = "#payload"
"""`Event(id=PAYLOAD)`: repeats of a device are known by a hash of the record's bytes. No field has this name."""


def as_missing(checks: Iterable[Check]) -> Correct:
    """A `correct` for fields of floating-point numbers: a value that one of `checks` flagged counts as missing."""
    fields = {check.name: check.field for check in checks}

    def correct(batch: Batch) -> Mapping[str, NDArray[Any]]:
        flags = [fields.get(flag) for flag in batch["flag"]]
        return {
            name: np.where([flag == name for flag in flags], np.nan, batch[name])
            for name in sorted({*fields.values()})
        }

    return correct


@dataclass(frozen=True, slots=True)
class Event:
    """A declared event type. Its schema is `schemas/<name>.avsc`.

    `key` names the field that identifies the device: state, order and partition key go by it. `id` names the
    field by which a device's repeats are known; `PAYLOAD` takes a hash of the record's bytes, as they came, instead
    of a field. Without either, every record is stored. A `required` field that is absent or null parks the row as
    FIELD_MISSING. `verify` returns a mask for each rule, true where the row keeps it. `calculate` is row-wise:
    a row's result depends on that row's columns alone (windows and previous values included). It returns no field of
    the schema. `previous` names
    fields whose last accepted value of the same device is given to `verify` and `calculate` as the column
    `previous.<field>`. The column `arrived` is the arrival at Kinesis (datetime64[ms]).

    A time that is sent as a number is refused where it seems to be in a coarser unit than its field's: read as
    seconds (or, in a field of microseconds, as milliseconds) it lies within 30 years of the record's arrival, read as
    the field says it does not. `reject_coarse_times=False` switches this off, for devices that do send times of
    January 1970.

    `checks` flag rows before the detector, the cheap ones first: the column `flag` names the first that a row
    trips (None: none). A flagged row is an anomaly, and the detector never sees it. `correct` is what a
    correction does with a stored row: row-wise, it sees the fields and `flag`, and returns the fields to replace.

    `declared_at` is the file and line that made it.
    """

    name: str
    key: str
    required: tuple[str, ...] = ()
    verify: Verify | None = None
    calculate: Calculate | None = None
    features: tuple[str, ...] = ()
    detector: DetectorFactory | None = None
    id: str = "id"
    sent: str | None = None
    window: Window | None = None
    previous: tuple[str, ...] = field(default=())
    checks: tuple[Check, ...] = ()
    correct: Correct | None = None
    reject_coarse_times: bool = True
    declared_at: str = field(init=False, repr=False, compare=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "declared_at", caller())
