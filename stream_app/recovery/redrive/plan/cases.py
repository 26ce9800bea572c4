"""Turns selected failures into drafts: checks lineage, earlier attempts, repair and encoding for the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stream_app.pipeline.registry import Registry
from stream_app.recovery.redrive.ledger.claims import Ledger
from stream_app.recovery.redrive.ledger.items import Attempt, State
from stream_app.recovery.redrive.lineage import Traced, traced
from stream_app.recovery.redrive.message import Lineage, Message, apply_repair, device, read
from stream_app.recovery.redrive.plan.file import LeftOut
from stream_app.recovery.redrive.select import Selected
from stream_app.recovery.redrive.targets.target import Draft, Target, Unsupported
from stream_app.recovery.repair.file import Repair
from stream_app.recovery.repair.steps import Unrepaired

NO_PAYLOAD = "its payload had expired from the stream"
NOT_MET = "the repair does not apply to it"
UNREPAIRED = "it cannot be repaired"
UNSUPPORTED = "it cannot be encoded for the target"
SPENT = "it reached the maximum number of redrives"
IN_FLIGHT = "another plan is sending it"
SUPERSEDED = "the same record failed again later"


@dataclass(frozen=True, slots=True)
class Case:
    """A failure that can be sent: its original message (None if not decodable), and the draft to send."""

    selected: Selected
    before: Message | None
    draft: Draft


def cases(
    selected: Sequence[Selected],
    *,
    ledger: Ledger,
    target: Target,
    registry: Registry,
    repair: Repair | None,
    max_redrives: int,
) -> tuple[list[Case], list[LeftOut]]:
    """Return the failures that can be sent, in order of arrival, and the others with reasons. Raises boto3 errors."""
    gone = [LeftOut(one.key, one.etag, NO_PAYLOAD) for one in selected if one.stored.data is None]
    last, superseded = _last_of_each(traced(selected, ledger, registry))
    histories = ledger.histories([one.lineage for one in last])
    found: list[Case] = []
    out = [*gone, *superseded]
    for one, history in zip(last, histories, strict=True):
        number = _number(one, history, max_redrives, ledger)
        case = number if isinstance(number, LeftOut) else _case(one, number, repair, registry, target)
        if isinstance(case, Case):
            found.append(case)
        else:
            out.append(case)
    return found, out


def draft_of(
    data: bytes, partition_key: str, lineage: Lineage, repair: Repair | None, registry: Registry
) -> Draft | Unrepaired | None:
    """Build the draft of a failed record; None if the repair's conditions do not match.

    A pure function of its arguments, so that a plan and its application get the same draft.
    """
    message = read(data, registry)
    if repair is None:
        key = partition_key if message is None else device(message, registry, partition_key)
        return Draft(data, message, False, key, lineage)
    after = None if message is None else apply_repair(message, repair)
    if after is None or isinstance(after, Unrepaired):
        return after
    return Draft(data, after, True, device(after, registry, partition_key), lineage)


def _last_of_each(found: Sequence[Traced]) -> tuple[list[Traced], list[LeftOut]]:
    last: Mapping[str, Traced] = {one.lineage.root: one for one in found}
    kept = [one for one in found if last[one.lineage.root] is one]
    out = [
        LeftOut(one.selected.key, one.selected.etag, SUPERSEDED, last[one.lineage.root].selected.key)
        for one in found
        if last[one.lineage.root] is not one
    ]
    return kept, out


def _number(one: Traced, history: Sequence[Attempt], max_redrives: int, ledger: Ledger) -> int | LeftOut:
    """Return the number of the record's next attempt.

    An abandoned attempt is resumed under its number, and so under its idempotency key.
    """
    sent = [attempt for attempt in history if attempt.state is not State.DISCARDED]
    last = sent[-1] if sent else None
    abandoned = last is not None and last.state is State.CLAIMED
    if last is not None and ledger.is_active(last):
        return _out(one, IN_FLIGHT, f"plan {last.plan}")
    times = max(len(sent) - abandoned, one.lineage.attempt)
    if times >= max_redrives:
        return _out(one, SPENT, f"{times} times")
    if last is not None and abandoned:
        return last.attempt
    return max(history[-1].attempt if history else 0, one.lineage.attempt) + 1


def _case(
    one: Traced, number: int, repair: Repair | None, registry: Registry, target: Target
) -> Case | LeftOut:
    lineage = Lineage(one.lineage.root, number)
    draft = draft_of(one.data, one.selected.stored.partition_key, lineage, repair, registry)
    if not isinstance(draft, Draft):
        return _out(one, UNREPAIRED, draft.why) if isinstance(draft, Unrepaired) else _out(one, NOT_MET)
    encoded = target.encode(draft)
    return (
        _out(one, UNSUPPORTED, encoded.why)
        if isinstance(encoded, Unsupported)
        else Case(one.selected, one.message, draft)
    )


def _out(one: Traced, why: str, detail: str = "") -> LeftOut:
    return LeftOut(one.selected.key, one.selected.etag, why, detail)
