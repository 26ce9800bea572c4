"""Late records, whose device has newer processed records: detection, and replay of the newer records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import NamedTuple

from stream_app.errors import ConfigError, Problem
from stream_app.model.record import Position
from stream_app.model.segment import token
from stream_app.recovery.redrive.context import RedriveContext
from stream_app.recovery.redrive.plan.file import REPEATED, STORED, Item, Place
from stream_app.recovery.redrive.plan.newer import (
    DeviceHistory,
    Latest,
    NewerRecord,
    fetch,
    hour_before,
    newer_records,
)
from stream_app.recovery.redrive.plan.predict import Predicted, time_field
from stream_app.recovery.redrive.targets.target import Destination

_REPLAY = "replay/"
MAX_REPLAYED = 10_000


class Late(NamedTuple):
    """A planned record whose device has a newer one: the times of both events, ms since the epoch."""

    device: str
    planned: int
    processed: int


def late_ones(predicted: Sequence[Predicted], latest: Mapping[str, Latest]) -> dict[int, Late]:
    """Return the late records among those predicted to be stored, by index."""
    found: dict[int, Late] = {}
    for at, one in enumerate(predicted):
        if one.outcome != STORED or one.time is None or one.device is None:
            continue
        row = latest.get(one.device)
        if row is not None and row.time > one.time:
            found[at] = Late(one.device, one.time, row.time)
    return found


def replays(
    context: RedriveContext,
    to: Destination,
    late: Mapping[int, Late],
    arrived: Mapping[int, int],
    threads: Executor,
) -> list[Item]:
    """Return items that replay, in order, the stored records newer than each device's late records; attempt 0.

    `late` and `arrived` (ms) are by index of the record. The pipeline recognizes the replayed records as repeated by
    their ids. They are for other readers of the bus or stream, and for endpoints, that keep the last record of a
    device. Raises ConfigError if the pipeline remembers fewer ids than that, if there are more than MAX_REPLAYED
    records, or if some have expired from the stream.
    """
    found: list[Item] = []
    for name in sorted({one.device for one in late.values()}):
        rows = [at for at, one in late.items() if one.device == name]
        event, _, device = name.partition("#")
        after = min(late[at].planned for at in rows)
        since = min(arrived[at] for at in rows)
        newer = _newer(context, event, device, after, since, threads)
        _check_repeats(name, newer, to, context)
        found += [_item(context, event, device, one) for one in newer]
    if len(found) > MAX_REPLAYED:
        hint = "select fewer failures, or choose apply or skip"
        raise ConfigError([Problem(f"{len(found):,} records to replay exceed {MAX_REPLAYED:,}", hint)])
    _check_retained(context, found, threads)
    return found


def _newer(
    context: RedriveContext, event: str, device: str, after: int, since: int, threads: Executor
) -> list[NewerRecord]:
    declared = context.registry.codecs[event].event
    start = hour_before(since, context.settings.segment_seconds)
    history = DeviceHistory(context.s3, context.bucket, declared, device, time_field(declared))
    return newer_records(history, after, start, threads)


def _check_repeats(name: str, newer: Sequence[NewerRecord], to: Destination, context: RedriveContext) -> None:
    if to.kind == "http":
        return
    # Half of the ids that the pipeline remembers per device. A record with a forgotten id would be stored twice.
    limit = context.settings.seen_ids // 2
    if len(newer) > limit or any(one.id is None for one in newer):
        hint = "choose apply: the late records are stored in their place, and no record twice"
        what = f"{name} has {len(newer)} newer records, and the pipeline may not recognize all of them as repeated"
        raise ConfigError([Problem(what, hint)])


def _item(context: RedriveContext, event: str, device: str, one: NewerRecord) -> Item:
    position = one.position
    key = f"{_REPLAY}{context.settings.stream}/{position.shard}/{token(position)}"
    place = Place(position.shard, position.sequence, position.sub, one.arrived)
    return Item(key=key, attempt=0, device=device, event=event, id=one.id, expected=REPEATED, place=place)


def _check_retained(context: RedriveContext, items: Sequence[Item], threads: Executor) -> None:
    expired = sum(found is None for found in threads.map(lambda item: fetch_item(context, item), items))
    if expired:
        hint = "choose apply or skip: expired records cannot be read from the stream"
        raise ConfigError([Problem(f"{expired} of the records to replay have expired from the stream", hint)])


def fetch_item(context: RedriveContext, item: Item) -> tuple[bytes, str] | None:
    """Read data and partition key of a record to replay; None if it has expired from the stream."""
    if item.place is None:
        raise ValueError(f"{item.key} is a failure, not a position in the stream")
    place = item.place
    position = Position(place.shard, place.sequence, place.sub)
    found = fetch(context.client("kinesis"), context.settings.stream, position, place.arrived)
    return None if found is None else (found.data, found.partition_key)
