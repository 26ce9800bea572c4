"""Executes a plan in batches: rate-limited, resumable, and safe to run concurrently with other appliers.

Guarantees: only one applier at a time sends a record, each attempt has one idempotency key, and an attempt that is
marked as complete is never sent again. An applier that dies after sending and before marking leaves the record in
doubt. The next applier sends it again under the same key if the receiver can recognize a second copy (an endpoint by
the key; the pipeline by the event's id, which it counts as repeated), otherwise it holds the record for a person. So
every record is delivered and takes effect once. `in_doubt="hold"` gives at-most-once delivery to receivers that
ignore the key.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from stream_app.recovery.redrive.apply.preflight import preflight
from stream_app.recovery.redrive.apply.run import Applied, Pace, Progress, Run, Timing
from stream_app.recovery.redrive.apply.send import Sender, Skipped
from stream_app.recovery.redrive.context import THREADS, RedriveContext
from stream_app.recovery.redrive.plan.file import Item, Plan
from stream_app.recovery.redrive.targets.target import Target


def apply(
    context: RedriveContext,
    plan: Plan,
    target: Target,
    pace: Pace | None = None,
    *,
    stop: threading.Event | None = None,
    progress: Progress = lambda _applied: None,
    timing: Timing | None = None,
    dry_run: bool = False,
) -> Applied:
    """Send the records of the plan that are not sent yet. Idempotent; several appliers may run at the same time.

    Stops early, between two batches, when `stop` is set. With `dry_run` all checks are made but nothing is claimed or
    sent; `left` counts the records that would be sent. Raises ConfigError if the plan cannot be applied
    (`preflight.preflight`), and boto3 errors; the next application resumes where this one ended.
    """
    stop = stop or threading.Event()
    with ThreadPoolExecutor(THREADS, "apply") as threads:
        checked = preflight(context, plan, threads)
        sender = Sender(context, plan, target, threads, (pace or Pace()).in_doubt)
        done = Applied(len(plan.items), len(checked.waiting), elsewhere=checked.elsewhere)
        for state, count in checked.ended.items():
            done.count(state, count, before=True)
        if dry_run:
            return _dry_run(done, sender, checked.waiting)
        list(threads.map(sender.tag, checked.untagged))
        timing = timing or Timing(stop.wait)
        Run(sender, pace or Pace(), timing, stop, progress, done, deque(checked.waiting)).run()
    return done


def _dry_run(done: Applied, sender: Sender, items: Sequence[Item]) -> Applied:
    for item, ready in zip(items, sender.threads.map(sender.prepare, items), strict=True):
        if isinstance(ready, Skipped):
            done.skipped += 1
            done.left -= 1
            done.name(item, ready.why)
    return done
