"""Records that come late: their device is further already; what is planned of them, and of what came after them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import NamedTuple

from stream_app.errors import ConfigError, Problem
from stream_app.model.segment import token
from stream_app.recovery.redrive.context import RedriveContext
from stream_app.recovery.redrive.plan.file import REPEATED, STORED, Item, Place
from stream_app.recovery.redrive.plan.newer import Later, Latest, fetch, hour_before, later
from stream_app.recovery.redrive.plan.predict import Predicted, time_field
from stream_app.recovery.redrive.targets.target import Destination

_REPLAY = "replay/"
MOST_REPLAYED = 10_000


class Late(NamedTuple):
    """A planned record whose device has a newer one: the times of both events, ms since the epoch."""

    device: str
    planned: int
    processed: int


def late_ones(told: Sequence[Predicted], latest: Mapping[str, Latest]) -> dict[int, Late]:
    """Which of the records that would be stored are late, by their index."""
    found: dict[int, Late] = {}
    for at, one in enumerate(told):
        if one.outcome != STORED or one.time is None or one.device is None:
            continue
        row = latest.get(one.device)
        if row is not None and row.time > one.time:
            found[at] = Late(one.device, one.time, row.time)
    return found


def replays(
    context: RedriveContext,
    to: Destination,
    told: Sequence[Predicted],
    late: Mapping[int, Late],
    arrived: Mapping[int, int],
    threads: Executor,
) -> list[Item]:
    """What was stored of each late record's device after it, to be sent once more behind it, in order; attempt 0.

    The pipeline itself counts them as repeated, by their ids: this is for other readers of the bus or the stream,
    and for endpoints, that keep the last they were given. Raises ConfigError when the pipeline might not know that
    many ids any more, when they are too many, or when some have left the stream.
    """
    found: list[Item] = []
    for name in sorted({one.device for one in late.values()}):
        rows = [at for at, one in late.items() if one.device == name]
        event, _, device = name.partition("#")
        after = min(late[at].planned for at in rows)
        since = min(arrived[at] for at in rows)
        some = _later(context, event, device, after, since, threads)
        _refuse(name, some, to, context)
        found += [_item(context, event, device, one) for one in some]
    if len(found) > MOST_REPLAYED:
        hint = "select less, or choose apply or skip"
        raise ConfigError([Problem(f"{len(found):,} records came after the late ones", hint)])
    _check_there(context, found, threads)
    return found


def _later(
    context: RedriveContext, event: str, device: str, after: int, since: int, threads: Executor
) -> list[Later]:
    declared = context.registry.codecs[event].event
    start = hour_before(since, context.settings.segment_seconds)
    return later(context.s3, context.bucket, declared, device, time_field(declared), after, start, threads)


def _refuse(name: str, some: Sequence[Later], to: Destination, context: RedriveContext) -> None:
    if to.kind == "http":
        return
    # Half of what the pipeline remembers of a device: what it forgot, it would store a second time.
    most = context.settings.seen_ids // 2
    if len(some) > most or any(one.id is None for one in some):
        hint = "choose apply: the late records are stored in their own place, and nothing twice"
        what = f"{name} has {len(some)} later records, of which the pipeline may not know all as repeats"
        raise ConfigError([Problem(what, hint)])


def _item(context: RedriveContext, event: str, device: str, one: Later) -> Item:
    position = one.position
    where = f"{_REPLAY}{context.settings.stream}/{position.shard}/{token(position)}"
    place = Place(position.shard, position.sequence, position.sub, one.arrived)
    return Item(key=where, attempt=0, device=device, event=event, id=one.id, expected=REPEATED, place=place)


def _check_there(context: RedriveContext, items: Sequence[Item], threads: Executor) -> None:
    gone = sum(found is None for found in threads.map(lambda item: fetch_item(context, item), items))
    if gone:
        hint = "choose apply or skip: what has left the stream cannot be sent again from it"
        raise ConfigError([Problem(f"{gone} of the later records have left the stream", hint)])


def fetch_item(context: RedriveContext, item: Item) -> tuple[bytes, str] | None:
    """Bytes and partition key of a record that is sent once more; None when it has left the stream."""
    if item.place is None:
        raise ValueError(f"{item.key} is a failure, not a place in the stream")
    place = item.place
    found = fetch(
        context.client("kinesis"),
        context.settings.stream,
        place.shard,
        place.sequence,
        place.sub,
        place.arrived,
    )
    return None if found is None else (found.data, found.partition_key)
