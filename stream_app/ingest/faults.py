"""Seeded bad input among the good: what is sent, and what the application should make of each piece.

Every fault is an extra record with an id of its own; the readings themselves stay whole and in order. In
proportion to the readings, by default:

| rate | fault | way | what it is | expected |
|---|---|---|---|---|
| 0.10 % | undecodable | stream | bytes that are neither JSON, gzip nor Avro | UNDECODABLE |
| 0.10 % | truncated-gzip | stream | the first half of a gzip | UNDECODABLE |
| 0.10 % | unknown-type | bus | a detail-type that nobody declared | UNKNOWN_SCHEMA |
| 0.10 % | unknown-fingerprint | stream | Avro written with a schema that nobody has | UNKNOWN_SCHEMA |
| 0.10 % | wrong-type | bus | `pm25` is "high"; for other events the key is a list | SCHEMA_VIOLATION |
| 0.10 % | time-absent | bus | no field `time` | FIELD_MISSING |
| 0.10 % | time-null | bus | `time` is null | FIELD_MISSING |
| 0.10 % | negative | bus | `pm25` is -5 (air_quality) | RULE_BROKEN |
| 0.10 % | from-the-future | bus | `time` in the year 2100 (air_quality) | RULE_BROKEN |
| 0.10 % | no-such-wind | bus | `wind_direction` is "XYZ" (air_quality) | CALCULATION_FAILED |
| 0.02 % | too-large | stream | a record above the application's limit | TOO_LARGE |
| 0.05 % | gzip-bomb | stream | some kilobytes that unpack to 64 times the limit | TOO_LARGE |
| 0.30 % | repeated | as before | a reading that the device sends a second time, up to 60 readings later | repeated |

And one device in twelve, drawn by its name, knows no bus: it writes its readings straight onto the stream, by
turns as plain JSON, gzipped JSON, Avro with the current schema, and Avro with the oldest schema kept (which
carries only the fields that it knows). A device keeps to one way, because two ways would mix up its order.
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
from typing import Any, Generic, NamedTuple, TypeVar

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
    Route,
    Sending,
    gzipped,
)
from stream_app.model.event import Event
from stream_app.model.record import Code

SEED = 35  # one of the twelve stations in Beijing is then a direct one: Huairou
LIMIT = 262_144  # bytes; `max_record_bytes` of the application
_LATER = 60  # readings
_BOMB = 64  # times the limit

_Made = tuple[Route, str, Detail | bytes]
# (event, detail of the extra record, randomness, limit) -> the way, the event name, what is sent
Make = Callable[[Event, dict[str, Any], Random, int], _Made]
T = TypeVar("T")


class Fault(NamedTuple):
    """One kind of bad input; `only` names the event type whose fields it needs."""

    name: str
    code: Code
    rate: float
    make: Make
    only: str | None = None


def _with(**changes: Any) -> Make:
    return lambda event, detail, rng, limit: ("bus", event.name, {**detail, **changes})


def _undecodable(event: Event, detail: dict[str, Any], rng: Random, limit: int) -> _Made:
    return "stream", event.name, b"\xff\xfe" + rng.randbytes(rng.randint(8, 200))


def _truncated(event: Event, detail: dict[str, Any], rng: Random, limit: int) -> _Made:
    whole = gzipped(event.name, detail)
    return "stream", event.name, whole[: len(whole) // 2]


def _unknown_type(event: Event, detail: dict[str, Any], rng: Random, limit: int) -> _Made:
    return "bus", f"{event.name}_prototype", detail


def _unknown_schema(event: Event, detail: dict[str, Any], rng: Random, limit: int) -> _Made:
    return "stream", event.name, b"\xc3\x01" + rng.randbytes(8) + rng.randbytes(rng.randint(40, 90))


def _key_is_list(event: Event, detail: dict[str, Any], rng: Random, limit: int) -> _Made:
    return "bus", event.name, {**detail, event.key: [detail.get(event.key)]}


def _time_absent(event: Event, detail: dict[str, Any], rng: Random, limit: int) -> _Made:
    return "bus", event.name, {name: value for name, value in detail.items() if name != "time"}


def _too_large(event: Event, detail: dict[str, Any], rng: Random, limit: int) -> _Made:
    return "stream", event.name, {**detail, "firmware_log": "." * limit}


def _bomb(event: Event, detail: dict[str, Any], rng: Random, limit: int) -> _Made:
    return "stream", event.name, _inflating(limit)


@lru_cache(maxsize=2)
def _inflating(limit: int) -> bytes:
    return gzip.compress(b" " * (limit * _BOMB), mtime=0)


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
# Where an event's own field makes the better example.
_OWN: Mapping[tuple[str, str], Make] = {(_AIR, "wrong-type"): _with(pm25="high")}

DIRECT = "direct"  # share of the devices, where all others are shares of the readings
FORMS = (JSON, GZIP, AVRO, AVRO_PAST)
RATES: Mapping[str, float] = {**{fault.name: fault.rate for fault in FAULTS}, REPEATED: 0.003, DIRECT: 1 / 12}


class _Chance(Generic[T]):
    """Draws at most one of several things, each with its share."""

    def __init__(self, things: Sequence[T], shares: Iterable[float]) -> None:
        self._things = things
        self._upto = list(itertools.accumulate(shares))

    def draw(self, rng: Random) -> T | None:
        at = bisect(self._upto, rng.random())
        return self._things[at] if at < len(self._things) else None


def plan(
    readings: Iterable[Mapping[str, Any]],
    event: Event,
    *,
    seed: int = SEED,
    rates: Mapping[str, float] = RATES,
    forms: Collection[str] = (),
    limit: int = LIMIT,
) -> Iterator[Sending]:
    """Every reading once and in order, with faults, repeats and other forms among them.

    `rates` are shares by name, as in RATES; what it leaves out does not occur. `forms` are those that can be
    written (`envelope.forms`). The same readings, seed, rates and forms give the same plan. Raises ConfigError
    for an unknown name or shares above 1.
    """
    _check(rates)
    faults = [f for f in FAULTS if rates.get(f.name) and f.only in (None, event.name)]
    shares = [*(rates[f.name] for f in faults), rates.get(REPEATED, 0.0)]
    spoil = _Chance[Fault | str]([*faults, REPEATED], shares)
    direct = rates.get(DIRECT, 0.0) if forms else 0.0
    writing = tuple(form for form in FORMS if form in forms)

    def sent(reading: Mapping[str, Any], rng: Random) -> Sending:
        value = reading.get(event.key)
        key = "" if value is None else str(value)
        form = rng.choice(writing) if direct and _draw(seed, key) < direct else ENVELOPE
        route: Route = "bus" if form == ENVELOPE else "stream"
        return Sending(route, event.name, key, reading, None, form, reading.get("time"), event.sent)

    return _plan(readings, event, Random(seed), sent, spoil, limit)


def _draw(seed: int, key: str) -> float:
    """From 0 to 1, the same for a device wherever it comes up."""
    return (
        int.from_bytes(blake2b(f"{seed}/{key}".encode("utf-8", "surrogatepass"), digest_size=4).digest())
        / 2**32
    )


def _check(rates: Mapping[str, float]) -> None:
    known = ", ".join(RATES)
    problems = [
        Problem(f"no fault is named {name!r}", f"known are {known}") for name in rates.keys() - RATES.keys()
    ]
    if min(rates.values(), default=0.0) < 0 or sum(rates.values()) - rates.get(DIRECT, 0.0) > 1:
        problems.append(Problem("the rates of faults are no shares", "give each 0 or more, 1 at most in all"))
    if problems:
        raise ConfigError(problems)


def _plan(
    readings: Iterable[Mapping[str, Any]],
    event: Event,
    rng: Random,
    sent: Callable[[Mapping[str, Any], Random], Sending],
    spoil: _Chance[Fault | str],
    limit: int,
) -> Iterator[Sending]:
    later: list[tuple[int, int, Sending]] = []  # (due, number, repeat)
    time = None
    for number, reading in enumerate(readings):
        good = sent(reading, rng)._replace(row=number + 1)
        time = good.time
        while later and later[0][0] <= number:
            yield heapq.heappop(later)[2]._replace(time=time)
        yield good
        extra = spoil.draw(rng)
        if isinstance(extra, Fault):
            yield _spoilt(extra, good, event, number, rng, limit)
        elif extra == REPEATED:
            due = number + rng.randint(1, _LATER)
            heapq.heappush(later, (due, number, good._replace(expected=REPEATED)))
    while later:
        yield heapq.heappop(later)[2]._replace(time=time)


def _spoilt(fault: Fault, good: Sending, event: Event, number: int, rng: Random, limit: int) -> Sending:
    assert not isinstance(good.detail, bytes)
    known = good.detail.get(event.id) or f"{good.key}/{number}"
    detail = {**good.detail, event.id: f"{known}/{fault.name}"}
    make = _OWN.get((event.name, fault.name), fault.make)
    route, name, made = make(event, detail, rng, limit)
    return good._replace(route=route, event=name, detail=made, expected=fault.code, form=ENVELOPE)


def expected(sendings: Iterable[Sending]) -> Counter[Expectation]:
    """How many of each expectation: codes, "repeated", and None for the good."""
    return Counter(sending.expected for sending in sendings)
