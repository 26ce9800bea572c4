"""From failures to drafts: their lineage, how often they were sent, their repair, their form for the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stream_app.pipeline.registry import Registry
from stream_app.recovery.redrive.ledger.claims import Ledger
from stream_app.recovery.redrive.ledger.items import Attempt, State
from stream_app.recovery.redrive.lineage import Traced, traced
from stream_app.recovery.redrive.message import Lineage, Message, device, mended, read
from stream_app.recovery.redrive.plan.file import LeftOut
from stream_app.recovery.redrive.select import Selected
from stream_app.recovery.redrive.targets.target import Draft, Target, Unfit
from stream_app.recovery.repair.file import Repair
from stream_app.recovery.repair.steps import Unrepaired

NO_PAYLOAD = "its payload had left the stream"
NOT_MET = "the repair is not for it"
UNREPAIRED = "it cannot be repaired"
UNFIT = "it has no form for the target"
SPENT = "it was sent as often as it may be"
IN_FLIGHT = "another plan is sending it"
SUPERSEDED = "the same record failed again later"


@dataclass(frozen=True, slots=True)
class Case:
    """A failure that can be sent: its message as it failed (None for mere bytes), and what would be sent."""

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
    """What can be sent, in order of arrival, and what cannot, with why. Raises what boto3 raises."""
    gone = [LeftOut(one.key, one.etag, NO_PAYLOAD) for one in selected if one.stored.data is None]
    found, superseded = _last_of_each(traced(selected, ledger, registry))
    histories = ledger.histories([one.lineage for one in found])
    made: list[Case] = []
    out = [*gone, *superseded]
    for one, history in zip(found, histories, strict=True):
        number = _number(one, history, max_redrives, ledger)
        case = number if isinstance(number, LeftOut) else _case(one, number, repair, registry, target)
        if isinstance(case, Case):
            made.append(case)
        else:
            out.append(case)
    return made, out


def draft_of(
    data: bytes, partition_key: str, lineage: Lineage, repair: Repair | None, registry: Registry
) -> Draft | Unrepaired | None:
    """What is to be sent of a failed record: a function of these alone, so that plan and application agree.

    None where the repair's conditions do not hold.
    """
    message = read(data, registry)
    if repair is None:
        key = partition_key if message is None else device(message, registry, partition_key)
        return Draft(data, message, False, key, lineage)
    after = None if message is None else mended(message, repair)
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
    """The number of the record's next attempt. One over which somebody died goes on under its number, and its key."""
    sent = [attempt for attempt in history if attempt.state is not State.DISCARDED]
    last = sent[-1] if sent else None
    begun = last is not None and last.state is State.CLAIMED
    if last is not None and ledger.lives(last):
        return _out(one, IN_FLIGHT, f"plan {last.plan}")
    times = max(len(sent) - begun, one.lineage.attempt)
    if times >= max_redrives:
        return _out(one, SPENT, f"{times} times")
    if last is not None and begun:
        return last.attempt
    return max(history[-1].attempt if history else 0, one.lineage.attempt) + 1


def _case(
    one: Traced, number: int, repair: Repair | None, registry: Registry, target: Target
) -> Case | LeftOut:
    lineage = Lineage(one.lineage.root, number)
    draft = draft_of(one.data, one.selected.stored.partition_key, lineage, repair, registry)
    if not isinstance(draft, Draft):
        return _out(one, UNREPAIRED, draft.why) if isinstance(draft, Unrepaired) else _out(one, NOT_MET)
    fits = target.parcel(draft)
    return _out(one, UNFIT, fits.why) if isinstance(fits, Unfit) else Case(one.selected, one.message, draft)


def _out(one: Traced, why: str, detail: str = "") -> LeftOut:
    return LeftOut(one.selected.key, one.selected.etag, why, detail)
