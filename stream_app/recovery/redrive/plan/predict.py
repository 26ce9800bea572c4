"""Predicts the pipeline's result for drafts by running the stages that the consumer runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from itertools import islice
from typing import NamedTuple

import numpy as np

from stream_app.model.event import PAYLOAD, Event
from stream_app.model.record import Batch, IntVector, Record
from stream_app.pipeline.flow import Processed, process
from stream_app.pipeline.registry import Codec, Registry
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.pipeline.values.schema import TIME_MS, TIME_US
from stream_app.recovery.redrive.message import original_form, with_id
from stream_app.recovery.redrive.plan.file import REPEATED, STORED
from stream_app.recovery.redrive.plan.newer import Latest, name_of
from stream_app.recovery.redrive.targets.target import Draft
from stream_app.sinks.dynamodb import event_times

_BATCH = 5_000


class Predicted(NamedTuple):
    """The predicted result of one record: stored, repeated, or a failure code with a reason.

    For a record that would be stored, `device` is its key in the latest table, `time` the event time (ms since the
    epoch), and `event` and `id` identify it in the stored files.
    """

    outcome: str
    because: str = ""
    device: str | None = None
    time: int | None = None
    event: str | None = None
    id: str | None = None


def predict(
    drafts: Iterable[Draft], registry: Registry, latest: Mapping[str, Latest], *, now_ms: int, max_bytes: int
) -> list[Predicted]:
    """Predict the result of each draft as if all of them, and nothing else, arrived now, in this order.

    `latest` has the latest row of each device, for rules that use a device's previous values. Other consumer state
    (windows, ids seen earlier) is not available, so a repeat of a stored event is not predicted.
    """
    # Scores do not affect the result, and detectors are the slowest stage.
    events = {name: replace(codec.event, detector=None) for name, codec in registry.codecs.items()}
    state = ShardState(events, _BATCH)
    for name, codec in registry.codecs.items():
        _remember(state, name, codec, latest)
    found: list[Predicted] = []
    remaining = iter(drafts)
    while chunk := list(islice(remaining, _BATCH)):
        records = [_record(draft, registry, number, now_ms) for number, draft in enumerate(chunk)]
        found += _predictions(process(records, registry, state, max_bytes), events, records)
    return found


def _record(draft: Draft, registry: Registry, number: int, now_ms: int) -> Record:
    if draft.message is None or draft.message.event is None:
        return Record(draft.data, draft.key, str(number), now_ms)
    message = with_id(draft.message, registry, draft.token)
    changed = draft.repaired or message is not draft.message
    return Record(original_form(message) if changed else draft.data, draft.key, str(number), now_ms)


def _predictions(
    result: Processed, events: Mapping[str, Event], records: Sequence[Record]
) -> list[Predicted]:
    found = [Predicted(REPEATED)] * len(records)
    for failure in result.failed:
        found[failure.row] = Predicted(failure.code.value, failure.reason)
    for name, batch in result.passed.items():
        event = events[name]
        times = event_times(batch, time_field(event), _arrivals(batch, records)).tolist()
        has_id = event.id in batch and event.id != PAYLOAD
        ids = batch.exact(event.id).tolist() if has_id else [None] * len(batch)
        for at, row in enumerate(batch.rows.tolist()):
            device = name_of(name, batch[event.key][at])
            id = None if ids[at] is None else str(ids[at])
            found[row] = Predicted(STORED, "", device, times[at], name, id)
    return found


def time_field(event: Event) -> str:
    """Return the name of the field that holds an event's time."""
    return event.window.time if event.window else "time"


def _arrivals(batch: Batch, records: Sequence[Record]) -> IntVector:
    return np.array([records[row].arrived for row in batch.rows.tolist()], dtype=np.int64)


def _remember(state: ShardState, name: str, codec: Codec, latest: Mapping[str, Latest]) -> None:
    """Load each device's previous values into the state, if the event's rules use them."""
    fields = codec.event.previous
    kinds = {field.name: field.kind for field in codec.schema.fields}
    last = {
        one.device: [_portable(one.values.get(field), kinds.get(field, "")) for field in fields]
        for one in latest.values()
        if one.event == name
    }
    previous = state[name].previous
    if previous is not None:
        dumped = {"fields": fields, "last": list(last.values())}
        previous.load(dumped, np.arange(len(last)), state[name].devices.slots(last))


def _portable(value: object, kind: str) -> object:
    """Convert a value of the latest table to its representation in a snapshot."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() and kind != "float" else float(value)
    if kind in (TIME_MS, TIME_US) and isinstance(value, str):
        try:
            moment = np.datetime64(datetime.fromisoformat(value).replace(tzinfo=None), "us").astype(np.int64)
        except ValueError:
            return None
        return int(moment) // (1_000 if kind == TIME_MS else 1)
    return value
