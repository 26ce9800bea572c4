"""A pipe that reads a queue: what matches is sent and deleted, what does not match is deleted.

What the target refuses is sent again a few times, for throttling; what it still refuses stays in the queue, comes
again after the visibility timeout, and ends in the queue's dead letter queue by its maxReceiveCount.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from stream_app.aws.retry import Policy
from stream_app.local.pipes.counters import Counters
from stream_app.local.pipes.pipe_route import PipeRoute
from stream_app.local.pipes.queue_poller import Message, Queue, group_of, sqs_record
from stream_app.local.pipes.targets import Unresolved
from stream_app.telemetry import log

POLICY = Policy(attempts=5, base_ms=50, cap_ms=1_000)


class _Ready(NamedTuple):
    message: Message
    entry: Any


class QueuePipe:
    """Handles the batches of a QueueReader; `handle` may run in several threads."""

    def __init__(
        self, way: PipeRoute, queue: Queue, counters: Counters, rng: random.Random, policy: Policy = POLICY
    ) -> None:
        self._way, self._queue, self._counters, self._rng = way, queue, counters, rng
        self._policy = policy

    def handle(self, messages: Sequence[Message], stop: threading.Event) -> Collection[Message]:
        """Send a batch; returns the messages that were sent or filtered out, which the reader deletes."""
        done: list[Message] = []
        ready: list[_Ready] = []
        stuck: set[str | None] = set()
        for message in messages:
            group = group_of(message)
            if group is not None and group in stuck:
                continue
            try:
                entry = self._way.take(sqs_record(message, self._queue))
            except Unresolved as error:
                log.get().warning(
                    "message cannot be sent", pipe=self._way.name, id=message["MessageId"], why=str(error)
                )
                stuck.add(group)
                continue
            if entry is None:
                self._counters.add(filtered=1)
                done.append(message)
            else:
                ready.append(_Ready(message, entry))
        done += self._deliver_in_order(ready, stop) if self._queue.fifo else self._deliver(ready, stop)
        return done

    def _deliver_in_order(self, ready: Sequence[_Ready], stop: threading.Event) -> list[Message]:
        """One message of each group at a time: PutRecords promises no order among its records."""
        done: list[Message] = []
        waiting = list(ready)
        while waiting:
            wave, waiting = _next_wave(waiting)
            sent = self._deliver(wave, stop)
            done += sent
            sent_groups = {group_of(message) for message in sent}
            # Behind a message that failed, its group waits with it.
            waiting = [item for item in waiting if group_of(item.message) in sent_groups]
        return done

    def _deliver(self, ready: Sequence[_Ready], stop: threading.Event) -> list[Message]:
        done: list[Message] = []
        waiting = list(ready)
        for attempt in range(self._policy.attempts):
            if not waiting:
                break
            if attempt:
                stop.wait(self._policy.pause(attempt - 1, self._rng))
                self._counters.add(retried=len(waiting))
            failed = self._way.send([item.entry for item in waiting])
            left = set(failed)
            done += [item.message for place, item in enumerate(waiting) if place not in left]
            self._counters.add(delivered=len(waiting) - len(left))
            waiting = [waiting[place] for place in sorted(left)]
        return done


def _next_wave(waiting: Sequence[_Ready]) -> tuple[list[_Ready], list[_Ready]]:
    """The first message of each group, and the others, in order."""
    first: dict[str | None, _Ready] = {}
    others: list[_Ready] = []
    for item in waiting:
        group = group_of(item.message)
        if group in first:
            others.append(item)
        else:
            first[group] = item
    return list(first.values()), others
