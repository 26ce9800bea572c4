"""Look up the outcome of redriven records.

A record sent to the stream has a position, which the segment manifests cover. A record sent to the bus has no known
position: it is found in the event files by device and id, or among newer failures by the lineage in its payload.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from datetime import datetime
from functools import partial
from itertools import chain, islice
from typing import NamedTuple

from stream_app.aws.objects import get
from stream_app.model.record import Position
from stream_app.model.segment import utc_datetime
from stream_app.recovery.find.query import Query, find_keys
from stream_app.recovery.redrive.context import RedriveContext
from stream_app.recovery.redrive.ledger.items import Attempt, State
from stream_app.recovery.redrive.manifests import Manifests, PositionOutcome
from stream_app.recovery.redrive.message import Lineage, read
from stream_app.recovery.redrive.plan.newer import column, columns, event_files, hour_before
from stream_app.recovery.store import load, parse_key

_AHEAD = 32  # files read concurrently
# Seconds. A device may have sent a valid copy of an event within the hour before the failed one.
_BEFORE_S = 3_600
EventIdentity = tuple[str, str]  # device and id


class Outcome(NamedTuple):
    """The new state of a redriven record, and the details for the ledger."""

    state: State
    why: str = ""


def outcomes(
    context: RedriveContext, sent: Sequence[Attempt], threads: Executor, thorough: bool
) -> dict[Lineage, Outcome]:
    """Return the outcome of each attempt that has one by now. Raises boto3 errors."""
    found = _by_position(context, [one for one in sent if "shard" in one.receipt])
    others = [one for one in sent if "shard" not in one.receipt and "status" not in one.receipt]
    found |= _stored(context, _without(others, found), threads, after=True)
    found |= _failed_again(context, _without(others, found), threads)
    if thorough:
        found |= _stored(context, _without(others, found), threads, after=False)
    return found


def _without(attempts: Iterable[Attempt], found: dict[Lineage, Outcome]) -> list[Attempt]:
    return [one for one in attempts if one.lineage not in found]


def _by_position(context: RedriveContext, attempts: Sequence[Attempt]) -> dict[Lineage, Outcome]:
    found: dict[Lineage, Outcome] = {}
    by_shard: dict[str, Manifests] = {}
    for one in attempts:
        shard = one.receipt["shard"]
        if shard not in by_shard:
            by_shard[shard] = Manifests(context.s3, context.bucket, context.settings.application, shard)
        position = Position(shard, one.receipt["sequence"])
        outcome = by_shard[shard].lookup(position)
        if outcome is not None:
            found[one.lineage] = _outcome(outcome, position)
    return found


def _outcome(found: PositionOutcome, position: Position) -> Outcome:
    if found.code is not None:
        return Outcome(State.FAILED, f"{found.code}: {position}")
    return Outcome(State.PROCESSED, f"{'repeated' if found.repeated else 'stored'}: {position}")


def _stored(
    context: RedriveContext, attempts: Sequence[Attempt], threads: Executor, *, after: bool
) -> dict[Lineage, Outcome]:
    """Search by device and id: event files since the redrive (`after`), or from the failure up to the redrive."""
    found: dict[Lineage, Outcome] = {}
    by_event: dict[str, dict[EventIdentity, list[Attempt]]] = {}
    for one in attempts:
        if one.event in context.registry.codecs and one.id and one.device:
            by_event.setdefault(one.event or "", {}).setdefault((one.device, one.id), []).append(one)
    for event, wanted in by_event.items():
        for identity, key in _find(context, event, wanted, threads, after):
            how = "stored" if after else "repeated, stored before"
            matches = wanted.pop(identity, ())
            found |= {one.lineage: Outcome(State.PROCESSED, f"{how}: {key}") for one in matches}
            if not wanted:
                break
    return found


def _find(
    context: RedriveContext,
    event: str,
    wanted: dict[EventIdentity, list[Attempt]],
    threads: Executor,
    after: bool,
) -> Iterator[tuple[EventIdentity, str]]:
    attempts = list(chain.from_iterable(wanted.values()))
    first = min(one.claimed_at for one in attempts)
    since, until = hour_before(first, context.settings.segment_seconds), None
    if not after:
        since, until = _failed_at(attempts, since), since
    files = event_files(context.s3, context.bucket, event, since, until)
    read_ids = partial(_ids, context, event)
    while chunk := list(islice(files, _AHEAD)):
        for key, ids in zip(chunk, threads.map(read_ids, chunk), strict=True):
            yield from ((identity, key) for identity in ids if identity in wanted)


def _failed_at(attempts: Iterable[Attempt], default: datetime) -> datetime:
    keys = [parse_key(one.failure) for one in attempts]
    arrivals = [key.arrived for key in keys if key is not None]
    return hour_before(min(arrivals), _BEFORE_S) if arrivals else default


def _ids(context: RedriveContext, event: str, key: str) -> list[EventIdentity]:
    declared = context.registry.codecs[event].event
    device, id = column(event, declared.key), column(event, declared.id)
    table = columns(context.s3, context.bucket, key, (device, id))
    if table is None or not {device, id} <= set(table.column_names):
        return []
    pairs = zip(table[device].to_pylist(), table[id].to_pylist(), strict=True)
    return [(str(device_key), str(event_id)) for device_key, event_id in pairs]


def _failed_again(
    context: RedriveContext, attempts: Sequence[Attempt], threads: Executor
) -> dict[Lineage, Outcome]:
    """Search by lineage among the payloads of the devices' failures that arrived after the redrive."""
    if not attempts:
        return {}
    wanted = {one.lineage for one in attempts}
    devices = {one.device for one in attempts}
    since = utc_datetime(min(one.claimed_at for one in attempts))
    candidates = [
        key
        for key in find_keys(context.s3, context.bucket, Query(context.settings.application, since))
        if (parsed := parse_key(key)) is not None and parsed.partition_key in (*devices, None)
    ]
    found: dict[Lineage, Outcome] = {}
    for lineage, why in filter(None, threads.map(partial(_embedded_lineage, context), candidates)):
        if lineage in wanted:
            found[lineage] = Outcome(State.FAILED, why)
    return found


def _embedded_lineage(context: RedriveContext, key: str) -> tuple[Lineage, str] | None:
    body = get(context.s3, context.bucket, key)
    try:
        stored = load(body) if body is not None else None
    except ValueError:
        return None
    message = read(stored.data, context.registry) if stored is not None and stored.data is not None else None
    if stored is None or message is None or message.lineage is None:
        return None
    return message.lineage, f"{stored.code}: {key}"
