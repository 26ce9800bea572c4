"""How a sent record is found again.

One that was put onto the stream by its position, through the manifests of segments. One that was put onto the bus has
no position yet: by device and id in the stored files, or by its lineage among new failures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from datetime import datetime
from functools import partial
from itertools import islice
from typing import NamedTuple

from stream_app.aws.objects import get
from stream_app.model.record import Position
from stream_app.model.segment import utc_datetime
from stream_app.recovery.find.query import Query, find_keys
from stream_app.recovery.redrive.context import RedriveContext
from stream_app.recovery.redrive.ledger.items import Attempt, State
from stream_app.recovery.redrive.manifests import Manifests
from stream_app.recovery.redrive.message import Lineage, read
from stream_app.recovery.redrive.plan.newer import column, columns, event_files, hour_before
from stream_app.recovery.store import load, parse_key

_AHEAD = 32  # files read side by side
# A device may have a good copy of an event stored in the same hour as the bad one.
_BEFORE_S = 3_600
Known = tuple[str, str]  # device and id


class Outcome(NamedTuple):
    """What became of a sent record, and the particulars for the ledger."""

    state: State
    why: str = ""


def outcomes(
    context: RedriveContext, sent: Sequence[Attempt], threads: Executor, thorough: bool
) -> dict[Lineage, Outcome]:
    """What became of each attempt, where that can be told by now. Raises what boto3 raises."""
    placed = [one for one in sent if "shard" in one.receipt]
    found = _placed(context, placed)
    others = [one for one in sent if "shard" not in one.receipt and "status" not in one.receipt]
    found |= _stored(context, _without(others, found), threads, after=True)
    found |= _failed_again(context, _without(others, found), threads)
    if thorough:
        found |= _stored(context, _without(others, found), threads, after=False)
    return found


def _without(attempts: Iterable[Attempt], found: dict[Lineage, Outcome]) -> list[Attempt]:
    return [one for one in attempts if one.lineage not in found]


def _placed(context: RedriveContext, attempts: Sequence[Attempt]) -> dict[Lineage, Outcome]:
    found: dict[Lineage, Outcome] = {}
    by_shard: dict[str, Manifests] = {}
    for one in attempts:
        shard = one.receipt["shard"]
        if shard not in by_shard:
            by_shard[shard] = Manifests(context.s3, context.bucket, context.settings.application, shard)
        position = Position(shard, one.receipt["sequence"])
        fate = by_shard[shard].fate(position)
        if fate is None:
            continue
        if fate.code is None:
            found[one.lineage] = Outcome(
                State.PROCESSED, f"{'repeated' if fate.repeated else 'stored'}: {position}"
            )
        else:
            found[one.lineage] = Outcome(State.FAILED, f"{fate.code}: {position}")
    return found


def _stored(
    context: RedriveContext, attempts: Sequence[Attempt], threads: Executor, *, after: bool
) -> dict[Lineage, Outcome]:
    """By device and id, in the files since the sending, or in those between the failure and the sending."""
    found: dict[Lineage, Outcome] = {}
    by_event: dict[str, dict[Known, list[Attempt]]] = {}
    for one in attempts:
        if one.event in context.registry.codecs and one.id and one.device:
            by_event.setdefault(one.event or "", {}).setdefault((one.device, one.id), []).append(one)
    for event, wanted in by_event.items():
        for known, key in _look(context, event, wanted, threads, after):
            how = "stored" if after else "repeated, stored before"
            found |= {one.lineage: Outcome(State.PROCESSED, f"{how}: {key}") for one in wanted.pop(known, ())}
            if not wanted:
                break
    return found


def _look(
    context: RedriveContext, event: str, wanted: dict[Known, list[Attempt]], threads: Executor, after: bool
) -> Iterator[tuple[Known, str]]:
    attempts = [one for some in wanted.values() for one in some]
    first = min(one.claimed_at for one in attempts)
    since, until = hour_before(first, context.settings.segment_seconds), None
    if not after:
        since, until = _failed_at(attempts, since), since
    files = event_files(context.s3, context.bucket, event, since, until)
    read_ids = partial(_ids, context, event)
    while some := list(islice(files, _AHEAD)):
        for key, ids in zip(some, threads.map(read_ids, some), strict=True):
            yield from ((known, key) for known in ids if known in wanted)


def _failed_at(attempts: Iterable[Attempt], otherwise: datetime) -> datetime:
    keys = [parse_key(one.failure) for one in attempts]
    arrivals = [key.arrived for key in keys if key is not None]
    return hour_before(min(arrivals), _BEFORE_S) if arrivals else otherwise


def _ids(context: RedriveContext, event: str, key: str) -> list[Known]:
    declared = context.registry.codecs[event].event
    device, id = column(event, declared.key), column(event, declared.id)
    table = columns(context.s3, context.bucket, key, (device, id))
    if table is None or not {device, id} <= set(table.column_names):
        return []
    pairs = zip(table[device].to_pylist(), table[id].to_pylist(), strict=True)
    return [(str(one), str(other)) for one, other in pairs]


def _failed_again(
    context: RedriveContext, attempts: Sequence[Attempt], threads: Executor
) -> dict[Lineage, Outcome]:
    """By the lineage in the payload of failures of the same devices that came after the sending."""
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
    for told in threads.map(partial(_carried, context), candidates):
        if told is not None and told[0] in wanted:
            found[told[0]] = Outcome(State.FAILED, told[1])
    return found


def _carried(context: RedriveContext, key: str) -> tuple[Lineage, str] | None:
    body = get(context.s3, context.bucket, key)
    try:
        stored = load(body) if body is not None else None
    except ValueError:
        return None
    message = read(stored.data, context.registry) if stored is not None and stored.data is not None else None
    if stored is None or message is None or message.lineage is None:
        return None
    return message.lineage, f"{stored.code}: {key}"
