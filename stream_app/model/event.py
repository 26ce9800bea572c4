"""The declaration of an event type: one module with an `Event`, next to an Avro schema."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np

from anomaly.detector import AnyArray, DetectorFactory
from stream_app.model.record import Batch, Mask
from stream_app.source_lines import caller

Verify = Callable[[Batch], Mapping[str, Mask]]
Calculate = Callable[[Batch], Mapping[str, AnyArray]]
Correct = Callable[[Batch], Mapping[str, AnyArray]]


@dataclass(frozen=True, slots=True)
class Window:
    """The device's past values on a regular grid of time, for `calculate`.

    Adds a column `window.<field>` of shape (n, size) for each of `fields`: [:, 0] is the row's own value, [:, j] the
    value `j * step` before it, NaN if there was none. `time` names the time field that places a reading on the grid,
    so a late reading is put in its own place. Example: `Window(("pm25",), size=12, step=timedelta(hours=1))`
    """

    fields: tuple[str, ...]
    size: int
    step: timedelta = timedelta(hours=1)
    time: str = "time"


@dataclass(frozen=True, slots=True)
class Range:
    """Flags a value below `low` or above `high`, in the field's unit; missing values are not flagged.

    Example: `Range("humidity", 0.0, 100.0)`
    """

    field: str
    low: float = -math.inf
    high: float = math.inf

    @property
    def name(self) -> str:
        """The text of the flag, as stored and shown in alerts."""
        return f"{self.field} is outside {self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True)
class Rate:
    """Flags a value that differs by more than `most` (in the field's unit) from the device's last one.

    After a pause longer than `per` the allowed difference grows in proportion. The last value is one that neither
    this check nor a Range of the same field flagged. Late readings, by the time field `time`, are not compared.

    Example: `Rate("pressure", 12.0, per=timedelta(hours=1))`
    """

    field: str
    most: float
    per: timedelta = timedelta(hours=1)
    time: str = "time"

    @property
    def name(self) -> str:
        """The text of the flag, as stored and shown in alerts."""
        return f"{self.field} changes by more than {self.most:g} in {self.per}"


@dataclass(frozen=True, slots=True)
class Stuck:
    """Flags a value that a device sends for the `times`-th time in a row, or more often.

    The values of `besides` are never flagged. Missing values are ignored: they do not count, nor do they interrupt
    the repetition. Example: `Stuck("rain", 24, besides=(0.0,))`
    """

    field: str
    times: int
    besides: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """The text of the flag, as stored and shown in alerts."""
        return f"{self.field} is the same {self.times} times in a row"


Check = Range | Rate | Stuck

PAYLOAD = "#payload"
"""`Event(id=PAYLOAD)`: recognize duplicates of a device by a hash of the record's bytes. No field has this name."""


def as_missing(checks: Iterable[Check]) -> Correct:
    """Return a `correct` function that sets values flagged by one of `checks` to NaN; for floating-point fields."""
    fields = {check.name: check.field for check in checks}

    def correct(batch: Batch) -> Mapping[str, AnyArray]:
        flags = [fields.get(flag) for flag in batch["flag"]]
        return {
            name: np.where([flag == name for flag in flags], np.nan, batch[name])
            for name in sorted({*fields.values()})
        }

    return correct


@dataclass(frozen=True, slots=True)
class Event:
    """An event type. Its Avro schema is the file `schemas/<name>.avsc`.

    Fields:

    - `name`: the name of the event type, such as "meter"; it selects the schema, the table and the S3 prefix.
    - `key`: the field that identifies the device. State and order are by device; use it as the partition key too.
    - `required`: fields that must be present and not null; otherwise the record fails as FIELD_MISSING.
    - `verify`: returns a boolean mask for each rule, true for the rows that satisfy it; others fail as RULE_BROKEN.
    - `calculate`: returns further columns, none of which is a field of the schema. It is row-wise: a row's result
      depends only on that row's columns, including its windows and previous values.
    - `features`: the numeric columns that the detector scores, in this order.
    - `detector`: called with `features`, returns a detector (`anomaly.detector`).
    - `id`: the field by which duplicates of a device are recognized. `PAYLOAD` uses a hash of the record's bytes, as
      received. If the schema has no such field, every record is stored.
    - `sent`: the time field at which the device sent the record, for the latency metric.
    - `window`: past values of fields for `calculate`, as columns `window.<field>`.
    - `previous`: fields whose last accepted value of the same device is passed to `verify` and `calculate` as the
      column `previous.<field>`.
    - `checks`: flag rows before the detector, cheap checks first. The column `flag` has the name of the first check
      that a row trips (None: none). A flagged row is an anomaly and is not passed to the detector.
    - `correct`: row-wise, called by a correction with the stored fields and `flag`; returns the fields to replace.
    - `reject_coarse_times`: reject a time sent as a number that appears to be in a coarser unit than its field: read
      as seconds (or as milliseconds, if the field is in microseconds) it is within 30 years of the record's arrival,
      read in the field's unit it is not. Set it to False for devices that do send times of January 1970.
    - `declared_at`: set automatically; the file and line of the declaration.

    The batches also have the column `arrived`, the arrival at Kinesis (datetime64[ms]).

    Example: `Event(name="meter", key="meter", required=("time",), checks=(Range("power", 0.0, 20_000.0),))`
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
