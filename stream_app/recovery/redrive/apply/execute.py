"""Carries a plan out: wave after wave, paced, resumable, and safe beside another applier.

What is guaranteed. A record is sent by one applier at a time, under one idempotency key an attempt, and not at all
once its attempt is marked. An applier that dies between sending and marking leaves the record in doubt; the next one
sends it again under the same key where the receiver can tell a second copy (an endpoint by the key, the pipeline by
the event's id, which it then counts as repeated), and else holds it for a person. So every record is delivered, and
takes effect once. `in_doubt="hold"` gives at most once to receivers that look at no key.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from stream_app.recovery.redrive.apply.preflight import survey
from stream_app.recovery.redrive.apply.run import Applied, Clocks, Pace, Progress, Run
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
    dependencies: Clocks | None = None,
    dry_run: bool = False,
) -> Applied:
    """Send what the plan says and is not sent yet; safe to repeat, at any time, by anybody, also at the same time.

    Ends early, in order, when `stop` is set. With `dry_run` everything is looked at and nothing claimed or sent:
    `left` counts what would be. Raises ConfigError when the plan may not be applied (`survey.survey`), and what
    boto3 raises; the next application goes on where this one ended.
    """
    stop = stop or threading.Event()
    dependencies = dependencies or Clocks(stop.wait)
    with ThreadPoolExecutor(THREADS, "apply") as threads:
        seen = survey(context, plan, threads)
        sender = Sender(context, plan, target, threads, (pace or Pace()).in_doubt)
        done = Applied(len(plan.items), len(seen.waiting), elsewhere=seen.elsewhere)
        for state, count in seen.ended.items():
            done.count(state, count, before=True)
        if dry_run:
            return _rehearsed(done, sender, seen.waiting)
        list(threads.map(sender.tag, seen.untagged))
        Run(sender, pace or Pace(), dependencies, stop, progress, done, deque(seen.waiting)).run()
    return done


def _rehearsed(done: Applied, sender: Sender, items: Sequence[Item]) -> Applied:
    for item, ready in zip(items, sender.threads.map(sender.prepare, items), strict=True):
        if isinstance(ready, Skipped):
            done.skipped += 1
            done.left -= 1
            done.name(item, ready.why)
    return done
