"""The line that a failure is of: a record that was sent again and failed again is the same record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stream_app.pipeline.registry import Registry
from stream_app.recovery.redrive.ledger.claims import Ledger
from stream_app.recovery.redrive.ledger.items import Attempt
from stream_app.recovery.redrive.message import Lineage, Message, read
from stream_app.recovery.redrive.select import Selected, select_one


@dataclass(frozen=True, slots=True)
class Traced:
    """A failure with its payload, what it says (None for mere bytes), and its lineage: attempt 0 for the first."""

    selected: Selected
    data: bytes
    message: Message | None
    lineage: Lineage


def traced(selected: Iterable[Selected], ledger: Ledger, registry: Registry) -> list[Traced]:
    """The failures that have a payload, in order of arrival, with their lineage. Raises what boto3 raises."""
    found = []
    for one in sorted(selected, key=_order):
        data = one.stored.data
        if data is not None:
            message = read(data, registry)
            carried = message.lineage if message is not None else None
            found.append(Traced(one, data, message, carried or Lineage(one.key, 0)))
    return _placed(found, ledger)


def _order(one: Selected) -> tuple[int, str, int, int]:
    stored = one.stored
    return stored.arrived, stored.shard, int(stored.sequence), stored.sub


def _placed(found: Sequence[Traced], ledger: Ledger) -> list[Traced]:
    """With the lineage of bytes that can carry none, which the ledger knows by their place in the stream."""
    places = {
        (
            one.selected.stored.stream,
            one.selected.stored.shard,
            one.selected.stored.sequence,
        ): one.selected.key
        for one in found
        if one.lineage.attempt == 0 and (one.message is None or one.message.envelope is None)
    }
    known = {places[place]: lineage for place, lineage in ledger.places(list(places)).items()}
    return [
        Traced(one.selected, one.data, one.message, known.get(one.selected.key, one.lineage)) for one in found
    ]


def lineage_of(selected: Iterable[Selected], ledger: Ledger, registry: Registry) -> dict[str, Lineage]:
    """The lineage of failures by their keys; one without a payload is the first of its line."""
    some = list(selected)
    known = {one.selected.key: one.lineage for one in traced(some, ledger, registry)}
    return {one.key: known.get(one.key, Lineage(one.key, 0)) for one in some}


def story(s3: Any, bucket: str, key: str, ledger: Ledger, registry: Registry) -> list[Attempt]:
    """Every attempt at the record that a failure is of, in order; for whoever shows it. Raises what boto3 raises."""
    selected = select_one(s3, bucket, key)
    return ledger.attempts(lineage_of([selected], ledger, registry)[key].root if selected else key)
