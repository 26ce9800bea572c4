"""Makes a plan: selects, repairs, foretells, looks for what is newer, and says it all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, NamedTuple

import msgspec

from stream_app.errors import ConfigError, Problem
from stream_app.model.segment import utc_datetime
from stream_app.recovery.redrive.context import THREADS, RedriveContext
from stream_app.recovery.redrive.ledger.claims import Ledger
from stream_app.recovery.redrive.message import codec_of, event_id, identified
from stream_app.recovery.redrive.plan.cases import Case, cases
from stream_app.recovery.redrive.plan.file import Item, LeftOut, Newer, Overtaken, Plan, Sample, sealed
from stream_app.recovery.redrive.plan.late import Late, late_ones, replays
from stream_app.recovery.redrive.plan.newer import Latest, name_of, newest
from stream_app.recovery.redrive.plan.predict import Predicted, predict
from stream_app.recovery.redrive.plan.quarantined import predict_safely
from stream_app.recovery.redrive.select import Selected, Selection, select
from stream_app.recovery.redrive.targets.target import Destination, Draft, Target
from stream_app.recovery.repair.file import Repair

MOST = 50_000  # failures in a plan, which holds them all in memory while it is made
NEWER_PROCESSED = "a newer record of its device was processed"
_SAMPLES, _NAMED = 5, 20


class Wish(NamedTuple):
    """What somebody asks for: which failures, where to, how repaired, and what of those that are late."""

    selection: Selection
    destination: Destination
    repair: Repair | None = None
    newer: Newer = "undecided"
    max_redrives: int = 3


def make(context: RedriveContext, wish: Wish, target: Target) -> Plan:
    """The plan for a wish; sends nothing and changes nothing.

    Without an end in time the selection ends now, so that what fails later is not of this plan. Raises ConfigError
    when nothing can be planned like that, and what boto3 raises.
    """
    wish = wish._replace(selection=_bounded(wish.selection, context))
    with ThreadPoolExecutor(THREADS, "plan") as threads:
        selected = list(select(context.s3, context.bucket, context.consumer, wish.selection, threads))
        if len(selected) > MOST:
            hint = f"select less, or add limit={MOST} and make one plan after the other"
            raise ConfigError([Problem(f"{len(selected):,} failures are more than a plan takes", hint)])
        made, out = cases(
            selected,
            ledger=context.ledger,
            target=target,
            registry=context.registry,
            repair=wish.repair,
            max_redrives=wish.max_redrives,
        )
        told, latest = _predict(made, context)
        late = late_ones(told, latest)
        if wish.newer == "skip":
            out += [_left_behind(made[at]) for at in late]
            keep = [at for at in range(len(made)) if at not in late]
            made, told = [made[at] for at in keep], [told[at] for at in keep]
        again = _replays(context, wish, made, told, late, threads) if wish.newer == "replay" else []
    return _assembled(context, wish, selected, list(zip(made, told, strict=True)), out, late, again)


def _bounded(selection: Selection, context: RedriveContext) -> Selection:
    if selection.until is not None or selection.key is not None:
        return selection
    return msgspec.structs.replace(selection, until=context.now)


def _predict(made: Sequence[Case], context: RedriveContext) -> tuple[list[Predicted], Mapping[str, Latest]]:
    names = [name for case in made if (name := _device(case.draft, context)) is not None]
    latest = newest(context.client("dynamodb"), context.settings.latest_table, names)
    now, most = context.now_ms(), context.settings.max_record_bytes

    def told(drafts: Sequence[Draft]) -> list[Predicted]:
        return predict(drafts, context.registry, latest, now_ms=now, max_bytes=most)

    return predict_safely(made, told), latest


def _device(draft: Draft, context: RedriveContext) -> str | None:
    codec = None if draft.message is None else codec_of(draft.message, context.registry)
    if codec is None or draft.message is None:
        return None
    key = draft.message.detail.get(codec.event.key)
    return name_of(codec.event.name, key) if isinstance(key, str) else None


def _left_behind(case: Case) -> LeftOut:
    return LeftOut(case.selected.key, case.selected.etag, NEWER_PROCESSED)


def _replays(
    context: RedriveContext,
    wish: Wish,
    made: Sequence[Case],
    told: Sequence[Predicted],
    late: Mapping[int, Late],
    threads: Executor,
) -> list[Item]:
    arrived = {at: made[at].selected.stored.arrived for at in late}
    items = replays(context, wish.destination, told, late, arrived, threads)
    return _within(items, context.ledger, wish.max_redrives)


def _within(items: Iterable[Item], ledger: Ledger, most: int) -> list[Item]:
    """Each with the number of its attempt; those that were sent as often as they may be are left where they are."""
    some = list(items)
    histories = ledger.histories([item.lineage for item in some])
    numbered = [
        msgspec.structs.replace(item, attempt=(history[-1].attempt if history else 0) + 1)
        for item, history in zip(some, histories, strict=True)
    ]
    return [item for item in numbered if item.attempt <= most]


def _assembled(
    context: RedriveContext,
    wish: Wish,
    selected: Sequence[Selected],
    made: Sequence[tuple[Case, Predicted]],
    out: Sequence[LeftOut],
    late: Mapping[int, Late],
    again: Sequence[Item],
) -> Plan:
    arrivals = [one.stored.arrived for one in selected]
    items = [_item(case, told, wish, context) for case, told in made]
    return sealed(
        Plan(
            made_at=context.now,
            by=context.by,
            consumer=context.consumer,
            stream=context.settings.stream,
            bucket=context.bucket,
            selection=wish.selection,
            destination=wish.destination,
            repair=wish.repair,
            newer="apply" if not late and wish.newer == "undecided" else wish.newer,
            max_redrives=wish.max_redrives,
            count=len(selected),
            sent=len(items) + len(again),
            replayed=len(again),
            left_out=_counted(one.why for one in out),
            codes=_counted(one.stored.code for one in selected),
            expected=_counted(told.outcome for _, told in made),
            devices=len({item.device for item in items}),
            oldest=utc_datetime(min(arrivals)) if arrivals else None,
            newest=utc_datetime(max(arrivals)) if arrivals else None,
            age_s=(context.now_ms() - min(arrivals)) // 1000 if arrivals else None,
            overtaken_count=len(late),
            overtaken=_overtaken(late),
            sample=tuple(_sample(case, told) for case, told in _chosen(made)),
            selection_digest="",
            items=(*items, *again),
            others=tuple(sorted(out, key=lambda one: one.key)),
        )
    )


def _item(case: Case, told: Predicted, wish: Wish, context: RedriveContext) -> Item:
    draft, message = case.draft, case.draft.message
    if message is not None and wish.destination.kind != "http":
        message = identified(message, context.registry, draft.token)
    root = draft.lineage.root
    return Item(
        key=case.selected.key,
        etag=case.selected.etag,
        root="" if root == case.selected.key else root,
        attempt=draft.lineage.attempt,
        device=draft.key,
        event=None if message is None else message.event,
        id=told.id or (None if message is None else event_id(message, context.registry)),
        expected=told.outcome,
    )


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items(), key=lambda pair: (-pair[1], pair[0])))


def _overtaken(late: Mapping[int, Late]) -> tuple[Overtaken, ...]:
    by_device: dict[str, list[Late]] = {}
    for one in late.values():
        by_device.setdefault(one.device, []).append(one)
    return tuple(
        Overtaken(name, _iso(some[0].processed), _iso(min(one.planned for one in some)), len(some))
        for name, some in sorted(by_device.items())[:_NAMED]
    )


def _iso(milliseconds: int) -> str:
    try:
        return utc_datetime(milliseconds).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):  # a year outside 1 to 9999
        return f"{milliseconds} ms"


def _chosen(made: Sequence[tuple[Case, Predicted]]) -> list[tuple[Case, Predicted]]:
    """A few that differ: one of each code and expectation first, then the oldest of the others."""
    first: dict[Any, int] = {}
    for at, (case, told) in enumerate(made):
        first.setdefault((case.selected.stored.code, told.outcome), at)
    order = [*first.values(), *(at for at in range(min(len(made), 2 * _SAMPLES)) if at not in first.values())]
    return [made[at] for at in order[:_SAMPLES]]


def _sample(case: Case, told: Predicted) -> Sample:
    after = case.draft.message
    return Sample(
        key=case.selected.key,
        code=case.selected.stored.code,
        reason=case.selected.stored.reason,
        expected=told.outcome,
        because=told.because,
        before=None if case.before is None else {"$event": case.before.event, **case.before.detail},
        after=None if after is None else {"$event": after.event, **after.detail},
    )
