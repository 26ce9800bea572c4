"""Lineage of failures: a record that was sent again and failed again is still the same record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stream_app.pipeline.registry import Registry
from stream_app.recovery.redrive.ledger.claims import Ledger
from stream_app.recovery.redrive.ledger.items import Attempt
from stream_app.recovery.redrive.message import Lineage, Message, read
from stream_app.recovery.redrive.select import Selected, select_one

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True, slots=True)
class Traced:
    """A failure with its payload, its message (None if not decodable) and its lineage (attempt 0 at first)."""

    selected: Selected
    data: bytes
    message: Message | None
    lineage: Lineage


def traced(selected: Iterable[Selected], ledger: Ledger, registry: Registry) -> list[Traced]:
    """Return the failures that have a payload, with lineage, in order of arrival. Raises boto3 errors."""
    found = []
    for one in sorted(selected, key=_arrival_order):
        data = one.stored.data
        if data is not None:
            message = read(data, registry)
            embedded = message.lineage if message is not None else None
            found.append(Traced(one, data, message, embedded or Lineage(one.key, 0)))
    return _with_ledger_lineages(found, ledger)


def _arrival_order(one: Selected) -> tuple[int, str, int, int]:
    stored = one.stored
    return stored.arrived, stored.shard, int(stored.sequence), stored.sub


def _with_ledger_lineages(found: Sequence[Traced], ledger: Ledger) -> list[Traced]:
    """Add the lineage of payloads without an envelope, which the ledger stores by their position in the stream."""
    keys = {
        (
            one.selected.stored.stream,
            one.selected.stored.shard,
            one.selected.stored.sequence,
        ): one.selected.key
        for one in found
        if one.lineage.attempt == 0 and (one.message is None or one.message.envelope is None)
    }
    known = {keys[position]: lineage for position, lineage in ledger.places(list(keys)).items()}
    return [replace(one, lineage=known.get(one.selected.key, one.lineage)) for one in found]


def lineage_of(selected: Iterable[Selected], ledger: Ledger, registry: Registry) -> dict[str, Lineage]:
    """Return the lineage of each failure by key. A failure without a payload starts a new lineage."""
    failures = list(selected)
    known = {one.selected.key: one.lineage for one in traced(failures, ledger, registry)}
    return {one.key: known.get(one.key, Lineage(one.key, 0)) for one in failures}


def story(s3: S3Client, bucket: str, key: str, ledger: Ledger, registry: Registry) -> list[Attempt]:
    """Return all attempts at the record of a failure, in order. Raises boto3 errors."""
    selected = select_one(s3, bucket, key)
    return ledger.attempts(lineage_of([selected], ledger, registry)[key].root if selected else key)
