"""Seeded faults: invalid records among the readings, with the outcome that the application should report for each.

Each fault is an additional record with its own ID; the readings themselves are sent unchanged and in order. The
default rates are relative to the number of readings:

| rate | fault | route | record | expected |
|---|---|---|---|---|
| 0.10 % | undecodable | stream | bytes that are neither JSON, gzip nor Avro | UNDECODABLE |
| 0.10 % | truncated-gzip | stream | the first half of a gzip file | UNDECODABLE |
| 0.10 % | unknown-type | bus | an undeclared detail-type | UNKNOWN_SCHEMA |
| 0.10 % | unknown-fingerprint | stream | Avro with an unknown writer schema | UNKNOWN_SCHEMA |
| 0.10 % | wrong-type | bus | `pm25` is "high"; for other events the key is a list | SCHEMA_VIOLATION |
| 0.10 % | time-absent | bus | no field `time` | FIELD_MISSING |
| 0.10 % | time-null | bus | `time` is null | FIELD_MISSING |
| 0.10 % | negative | bus | `pm25` is -5 (air_quality) | RULE_BROKEN |
| 0.10 % | from-the-future | bus | `time` in the year 2100 (air_quality) | RULE_BROKEN |
| 0.10 % | no-such-wind | bus | `wind_direction` is "XYZ" (air_quality) | CALCULATION_FAILED |
| 0.02 % | too-large | stream | a record larger than the application's limit | TOO_LARGE |
| 0.05 % | gzip-bomb | stream | a few kilobytes that expand to 64 times the limit | TOO_LARGE |
| 0.30 % | repeated | unchanged | a reading that the device sends again, up to 60 readings later | repeated |

In addition, one device in twelve, selected by a hash of its name, writes its readings directly to the stream in
varying encodings: plain JSON, gzipped JSON, Avro with the current schema, and Avro with the oldest schema kept (which
contains only the fields of that schema). A device uses a single route, because two routes would not preserve order.
"""

from __future__ import annotations

import gzip
import heapq
import itertools
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b
from random import Random
from typing import Generic, NamedTuple, TypeVar

from stream_app.errors import ConfigError, Problem
from stream_app.ingest.envelope import (
    AVRO,
    AVRO_PAST,
    ENVELOPE,
    GZIP,
    JSON,
    REPEATED,
    Detail,
    Expectation,
    OutgoingRecord,
    Route,
    gzipped,
)
from stream_app.model.event import Event
from stream_app.model.record import Code

SEED = 35  # With this seed one of the twelve stations in Beijing (Huairou) writes directly to the stream.
LIMIT = 262_144  # bytes; the default of the application's `max_record_bytes`
_MAX_REPEAT_DISTANCE = 60  # readings
_BOMB_FACTOR = 64  # times the limit

_FaultyRecord = tuple[Route, str, Detail | bytes]
# Takes the event, the detail of the additional record, the random generator and the size limit in bytes. Returns the
# route, the event name, and the detail or bytes to send.
MakeFault = Callable[[Event, Detail, Random, int], _FaultyRecord]
T = TypeVar("T")


class Fault(NamedTuple):
    """A kind of fault. `only` names the event type whose fields it requires."""

    name: str
    code: Code
    rate: float
    make: MakeFault
    only: str | None = None


def _with(**changes: object) -> MakeFault:
    return lambda event, detail, rng, limit: ("bus", event.name, {**detail, **changes})


def _undecodable(event: Event, detail: Detail, rng: Random, limit: int) -> _FaultyRecord:
    return "stream", event.name, b"\xff\xfe" + rng.randbytes(rng.randint(8, 200))


def _truncated(event: Event, detail: Detail, rng: Random, limit: int) -> _FaultyRecord:
    whole = gzipped(event.name, detail)
    return "stream", event.name, whole[: len(whole) // 2]


def _unknown_type(event: Event, detail: Detail, rng: Random, limit: int) -> _FaultyRecord:
    return "bus", f"{event.name}_prototype", detail


def _unknown_schema(event: Event, detail: Detail, rng: Random, limit: int) -> _FaultyRecord:
    return "stream", event.name, b"\xc3\x01" + rng.randbytes(8) + rng.randbytes(rng.randint(40, 90))


def _key_is_list(event: Event, detail: Detail, rng: Random, limit: int) -> _FaultyRecord:
    return "bus", event.name, {**detail, event.key: [detail.get(event.key)]}


def _time_absent(event: Event, detail: Detail, rng: Random, limit: int) -> _FaultyRecord:
    return "bus", event.name, {name: value for name, value in detail.items() if name != "time"}


def _too_large(event: Event, detail: Detail, rng: Random, limit: int) -> _FaultyRecord:
    return "stream", event.name, {**detail, "firmware_log": "." * limit}


def _bomb(event: Event, detail: Detail, rng: Random, limit: int) -> _FaultyRecord:
    return "stream", event.name, _inflating(limit)


@lru_cache(maxsize=2)
def _inflating(limit: int) -> bytes:
    return gzip.compress(b" " * (limit * _BOMB_FACTOR), mtime=0)


_AIR = "air_quality"
FAULTS: tuple[Fault, ...] = (
    Fault("undecodable", Code.UNDECODABLE, 0.0010, _undecodable),
    Fault("truncated-gzip", Code.UNDECODABLE, 0.0010, _truncated),
    Fault("unknown-type", Code.UNKNOWN_SCHEMA, 0.0010, _unknown_type),
    Fault("unknown-fingerprint", Code.UNKNOWN_SCHEMA, 0.0010, _unknown_schema),
    Fault("wrong-type", Code.SCHEMA_VIOLATION, 0.0010, _key_is_list),
    Fault("time-absent", Code.FIELD_MISSING, 0.0010, _time_absent),
    Fault("time-null", Code.FIELD_MISSING, 0.0010, _with(time=None)),
    Fault("negative", Code.RULE_BROKEN, 0.0010, _with(pm25=-5.0), _AIR),
    Fault("from-the-future", Code.RULE_BROKEN, 0.0010, _with(time=datetime(2100, 1, 1, tzinfo=UTC)), _AIR),
    Fault("no-such-wind", Code.CALCULATION_FAILED, 0.0010, _with(wind_direction="XYZ"), _AIR),
    Fault("too-large", Code.TOO_LARGE, 0.0002, _too_large),
    Fault("gzip-bomb", Code.TOO_LARGE, 0.0005, _bomb),
)
# Faults that use a field of a specific event type.
_EVENT_SPECIFIC: Mapping[tuple[str, str], MakeFault] = {(_AIR, "wrong-type"): _with(pm25="high")}

DIRECT = "direct"  # A share of the devices; all other rates are shares of the readings.
ENCODINGS = (JSON, GZIP, AVRO, AVRO_PAST)
RATES: Mapping[str, float] = {**{fault.name: fault.rate for fault in FAULTS}, REPEATED: 0.003, DIRECT: 1 / 12}


class _WeightedChoice(Generic[T]):
    """Draws at most one of several choices, each with its probability."""

    def __init__(self, choices: Sequence[T], probabilities: Iterable[float]) -> None:
        self._choices = choices
        self._cumulative = list(itertools.accumulate(probabilities))

    def draw(self, rng: Random) -> T | None:
        at = bisect(self._cumulative, rng.random())
        return self._choices[at] if at < len(self._choices) else None


def plan(
    readings: Iterable[Detail],
    event: Event,
    *,
    seed: int = SEED,
    rates: Mapping[str, float] = RATES,
    encodings: Collection[str] = (),
    limit: int = LIMIT,
) -> Iterator[OutgoingRecord]:
    """Return every reading once and in order, with faults and repeats, some of them in other encodings.

    `rates` are shares by name as in RATES; a missing rate is 0. `encodings` are the available encodings, such as the
    keys of `envelope.encoders`. Deterministic for the same arguments. Raises ConfigError for an unknown name or
    shares above 1.
    """
    _check(rates)
    faults = [f for f in FAULTS if rates.get(f.name) and f.only in (None, event.name)]
    shares = [*(rates[f.name] for f in faults), rates.get(REPEATED, 0.0)]
    extras = _WeightedChoice[Fault | str]([*faults, REPEATED], shares)
    direct = rates.get(DIRECT, 0.0) if encodings else 0.0
    available = tuple(encoding for encoding in ENCODINGS if encoding in encodings)

    def record_of(reading: Detail, rng: Random) -> OutgoingRecord:
        value = reading.get(event.key)
        key = "" if value is None else str(value)
        encoding = rng.choice(available) if direct and _draw(seed, key) < direct else ENVELOPE
        route: Route = "bus" if encoding == ENVELOPE else "stream"
        return OutgoingRecord(
            route, event.name, key, reading, None, encoding, reading.get("time"), event.sent
        )

    return _plan(readings, event, Random(seed), record_of, extras, limit)


def _draw(seed: int, key: str) -> float:
    """Return a pseudorandom number from 0 to 1 that depends only on seed and device."""
    return (
        int.from_bytes(blake2b(f"{seed}/{key}".encode("utf-8", "surrogatepass"), digest_size=4).digest())
        / 2**32
    )


def _check(rates: Mapping[str, float]) -> None:
    known = ", ".join(RATES)
    problems = [
        Problem(f"unknown fault {name!r}", f"use one of {known}") for name in rates.keys() - RATES.keys()
    ]
    if min(rates.values(), default=0.0) < 0 or sum(rates.values()) - rates.get(DIRECT, 0.0) > 1:
        hint = "use rates of at least 0 with a sum of at most 1"
        problems.append(Problem("the rates of the faults are invalid", hint))
    if problems:
        raise ConfigError(problems)


def _plan(
    readings: Iterable[Detail],
    event: Event,
    rng: Random,
    record_of: Callable[[Detail, Random], OutgoingRecord],
    extras: _WeightedChoice[Fault | str],
    limit: int,
) -> Iterator[OutgoingRecord]:
    repeats: list[tuple[int, int, OutgoingRecord]] = []  # (row after which it is due, own row, record)
    time = None
    for number, reading in enumerate(readings):
        valid = record_of(reading, rng)._replace(row=number + 1)
        time = valid.time
        while repeats and repeats[0][0] <= number:
            yield heapq.heappop(repeats)[2]._replace(time=time)
        yield valid
        extra = extras.draw(rng)
        if isinstance(extra, Fault):
            yield _faulty(extra, valid, event, number, rng, limit)
        elif extra == REPEATED:
            due = number + rng.randint(1, _MAX_REPEAT_DISTANCE)
            heapq.heappush(repeats, (due, number, valid._replace(expected=REPEATED)))
    while repeats:
        yield heapq.heappop(repeats)[2]._replace(time=time)


def _faulty(
    fault: Fault, valid: OutgoingRecord, event: Event, number: int, rng: Random, limit: int
) -> OutgoingRecord:
    assert not isinstance(valid.detail, bytes)
    known = valid.detail.get(event.id) or f"{valid.key}/{number}"
    detail = {**valid.detail, event.id: f"{known}/{fault.name}"}
    make = _EVENT_SPECIFIC.get((event.name, fault.name), fault.make)
    route, name, content = make(event, detail, rng, limit)
    return valid._replace(route=route, event=name, detail=content, expected=fault.code, encoding=ENVELOPE)


def expected(records: Iterable[OutgoingRecord]) -> Counter[Expectation]:
    """Count the records by expected outcome: failure codes, "repeated", and None for valid records."""
    return Counter(record.expected for record in records)
