"""Builds a plan: selects and repairs failures, predicts their results and detects late records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import NamedTuple

import msgspec

from stream_app.errors import ConfigError, Problem
from stream_app.model.segment import utc_datetime
from stream_app.recovery.redrive.context import THREADS, RedriveContext
from stream_app.recovery.redrive.ledger.claims import Ledger
from stream_app.recovery.redrive.message import codec_of, event_id, with_id
from stream_app.recovery.redrive.plan.cases import Case, cases
from stream_app.recovery.redrive.plan.file import Item, LeftOut, Newer, Overtaken, Plan, Sample, with_digests
from stream_app.recovery.redrive.plan.late import Late, late_ones, replays
from stream_app.recovery.redrive.plan.newer import Latest, name_of, newest
from stream_app.recovery.redrive.plan.predict import Predicted, predict
from stream_app.recovery.redrive.plan.quarantined import predict_quarantined
from stream_app.recovery.redrive.select import Selected, Selection, select
from stream_app.recovery.redrive.targets.target import Destination, Draft, Target
from stream_app.recovery.repair.file import Repair

MAX_FAILURES = 50_000  # of a plan, which is built in memory
NEWER_PROCESSED = "a newer record of its device was processed"
_SAMPLES, _NAMED = 5, 20


class PlanRequest(NamedTuple):
    """The input of a plan: selection, destination, repair, policy for late records (`newer`) and redrive limit."""

    selection: Selection
    destination: Destination
    repair: Repair | None = None
    newer: Newer = "undecided"
    max_redrives: int = 3


def build_plan(context: RedriveContext, request: PlanRequest, target: Target) -> Plan:
    """Build a plan without sending or changing anything. Raises ConfigError and boto3 errors.

    A selection without an end time ends now, so that later failures do not belong to the plan.
    """
    request = request._replace(selection=_bounded(request.selection, context))
    with ThreadPoolExecutor(THREADS, "plan") as threads:
        selected = list(select(context.s3, context.bucket, context.consumer, request.selection, threads))
        if len(selected) > MAX_FAILURES:
            hint = f"select fewer, or add limit={MAX_FAILURES} and create several plans, one after another"
            raise ConfigError(
                [Problem(f"{len(selected):,} failures exceed the maximum of a plan ({MAX_FAILURES:,})", hint)]
            )
        found, out = cases(
            selected,
            ledger=context.ledger,
            target=target,
            registry=context.registry,
            repair=request.repair,
            max_redrives=request.max_redrives,
        )
        predictions, latest = _predict(found, context)
        late = late_ones(predictions, latest)
        planned = list(zip(found, predictions, strict=True))
        if request.newer == "skip":
            out += [_left_behind(found[at]) for at in late]
            planned = [pair for at, pair in enumerate(planned) if at not in late]
        replayed = _replays(context, request, found, late, threads) if request.newer == "replay" else []
    return _assemble(context, request, selected, planned, out, late, replayed)


def _bounded(selection: Selection, context: RedriveContext) -> Selection:
    if selection.until is not None or selection.key is not None:
        return selection
    return msgspec.structs.replace(selection, until=context.now)


def _predict(found: Sequence[Case], context: RedriveContext) -> tuple[list[Predicted], Mapping[str, Latest]]:
    names = [name for case in found if (name := _device(case.draft, context)) is not None]
    latest = newest(context.client("dynamodb"), context.settings.latest_table, names)
    now, max_bytes = context.now_ms(), context.settings.max_record_bytes

    def predict_drafts(drafts: Sequence[Draft]) -> list[Predicted]:
        return predict(drafts, context.registry, latest, now_ms=now, max_bytes=max_bytes)

    return predict_quarantined(found, predict_drafts), latest


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
    request: PlanRequest,
    found: Sequence[Case],
    late: Mapping[int, Late],
    threads: Executor,
) -> list[Item]:
    arrived = {at: found[at].selected.stored.arrived for at in late}
    items = replays(context, request.destination, late, arrived, threads)
    return _below_limit(items, context.ledger, request.max_redrives)


def _below_limit(items: Sequence[Item], ledger: Ledger, max_redrives: int) -> list[Item]:
    """Number the attempt of each item, and drop those that have reached the maximum number of redrives."""
    histories = ledger.histories([item.lineage for item in items])
    numbered = [
        msgspec.structs.replace(item, attempt=(history[-1].attempt if history else 0) + 1)
        for item, history in zip(items, histories, strict=True)
    ]
    return [item for item in numbered if item.attempt <= max_redrives]


def _assemble(
    context: RedriveContext,
    request: PlanRequest,
    selected: Sequence[Selected],
    planned: Sequence[tuple[Case, Predicted]],
    out: Sequence[LeftOut],
    late: Mapping[int, Late],
    replayed: Sequence[Item],
) -> Plan:
    arrivals = [one.stored.arrived for one in selected]
    items = [_item(case, predicted, request, context) for case, predicted in planned]
    return with_digests(
        Plan(
            made_at=context.now,
            by=context.by,
            consumer=context.consumer,
            stream=context.settings.stream,
            bucket=context.bucket,
            selection=request.selection,
            destination=request.destination,
            repair=request.repair,
            newer="apply" if not late and request.newer == "undecided" else request.newer,
            max_redrives=request.max_redrives,
            count=len(selected),
            sent=len(items) + len(replayed),
            replayed=len(replayed),
            left_out=_counted(one.why for one in out),
            codes=_counted(one.stored.code for one in selected),
            expected=_counted(predicted.outcome for _, predicted in planned),
            devices=len({item.device for item in items}),
            oldest=utc_datetime(min(arrivals)) if arrivals else None,
            newest=utc_datetime(max(arrivals)) if arrivals else None,
            age_s=(context.now_ms() - min(arrivals)) // 1000 if arrivals else None,
            overtaken_count=len(late),
            overtaken=_overtaken(late),
            sample=tuple(_sample(case, predicted) for case, predicted in _samples(planned)),
            selection_digest="",
            items=(*items, *replayed),
            others=tuple(sorted(out, key=lambda one: one.key)),
        )
    )


def _item(case: Case, predicted: Predicted, request: PlanRequest, context: RedriveContext) -> Item:
    draft, message = case.draft, case.draft.message
    if message is not None and request.destination.kind != "http":
        message = with_id(message, context.registry, draft.token)
    root = draft.lineage.root
    return Item(
        key=case.selected.key,
        etag=case.selected.etag,
        root="" if root == case.selected.key else root,
        attempt=draft.lineage.attempt,
        device=draft.key,
        event=None if message is None else message.event,
        id=predicted.id or (None if message is None else event_id(message, context.registry)),
        expected=predicted.outcome,
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


def _samples(planned: Sequence[tuple[Case, Predicted]]) -> list[tuple[Case, Predicted]]:
    """Choose varied samples: the first of each pair of code and expected result, then the oldest others."""
    first: dict[tuple[str, str], int] = {}
    for at, (case, predicted) in enumerate(planned):
        first.setdefault((case.selected.stored.code, predicted.outcome), at)
    distinct = set(first.values())
    others = (at for at in range(min(len(planned), 2 * _SAMPLES)) if at not in distinct)
    return [planned[at] for at in [*first.values(), *others][:_SAMPLES]]


def _sample(case: Case, predicted: Predicted) -> Sample:
    after = case.draft.message
    return Sample(
        key=case.selected.key,
        code=case.selected.stored.code,
        reason=case.selected.stored.reason,
        expected=predicted.outcome,
        because=predicted.because,
        before=None if case.before is None else {"$event": case.before.event, **case.before.detail},
        after=None if after is None else {"$event": after.event, **after.detail},
    )
