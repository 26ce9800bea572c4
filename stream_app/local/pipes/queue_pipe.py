"""A pipe with an SQS source: matching messages are sent and deleted, other messages are deleted.

If the target rejects a message, for example when it throttles, sending is retried a few times. If it still fails, the
message becomes visible again after the visibility timeout and goes to the queue's dead-letter queue after
maxReceiveCount attempts.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Collection, Sequence
from typing import NamedTuple

from stream_app.aws.retry import Policy
from stream_app.local.pipes.counters import Counters
from stream_app.local.pipes.pipe_route import PipeRoute
from stream_app.local.pipes.queue_reader import Message, Queue, group_of, sqs_record
from stream_app.local.pipes.targets import Entry, UnresolvedParameter
from stream_app.telemetry import log

POLICY = Policy(attempts=5, base_ms=50, cap_ms=1_000)


class _Ready(NamedTuple):
    message: Message
    entry: Entry


class QueuePipe:
    """Handles the batches of a QueueReader. `handle` is thread-safe."""

    def __init__(
        self, route: PipeRoute, queue: Queue, counters: Counters, rng: random.Random, policy: Policy = POLICY
    ) -> None:
        self._route, self._queue, self._counters, self._rng = route, queue, counters, rng
        self._policy = policy

    def handle(self, messages: Sequence[Message], stop: threading.Event) -> Collection[Message]:
        """Send a batch. Returns the messages that were sent or filtered out, which the reader deletes."""
        done: list[Message] = []
        ready: list[_Ready] = []
        failed_groups: set[str | None] = set()
        for message in messages:
            group = group_of(message)
            if group is not None and group in failed_groups:
                continue
            try:
                entry = self._route.prepare(sqs_record(message, self._queue))
            except UnresolvedParameter as error:
                log.get().warning(
                    "message cannot be sent", pipe=self._route.name, id=message["MessageId"], why=str(error)
                )
                failed_groups.add(group)
                continue
            if entry is None:
                self._counters.add(filtered=1)
                done.append(message)
            else:
                ready.append(_Ready(message, entry))
        done += self._deliver_in_order(ready, stop) if self._queue.fifo else self._deliver(ready, stop)
        return done

    def _deliver_in_order(self, ready: Sequence[_Ready], stop: threading.Event) -> list[Message]:
        """Send one message of each group at a time, because PutRecords does not preserve the order of its records."""
        done: list[Message] = []
        waiting = list(ready)
        while waiting:
            first, waiting = _split_first_of_group(waiting)
            sent = self._deliver(first, stop)
            done += sent
            sent_groups = {group_of(message) for message in sent}
            # After a failed message, the rest of its group must be retried with it.
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
            failed = set(self._route.send([item.entry for item in waiting]))
            done += [item.message for index, item in enumerate(waiting) if index not in failed]
            self._counters.add(delivered=len(waiting) - len(failed))
            waiting = [waiting[index] for index in sorted(failed)]
        return done


def _split_first_of_group(waiting: Sequence[_Ready]) -> tuple[list[_Ready], list[_Ready]]:
    """Return the first message of each group and the other messages, in order."""
    first: dict[str | None, _Ready] = {}
    others: list[_Ready] = []
    for item in waiting:
        group = group_of(item.message)
        if group in first:
            others.append(item)
        else:
            first[group] = item
    return list(first.values()), others
