"""SQS queues that scale to a large backlog and are safe for concurrent use.

With this patch:

- receiving, deleting and counting do not iterate over the queue
- concurrent calls neither lose a message nor deliver it twice
- a FIFO queue keeps deduplication IDs for five minutes, even after the message was deleted
- the sequence numbers of a FIFO queue increase
- a message older than the retention period is dropped and does not block later messages
- only the visibility timeout of an in-flight message can be changed
- the number of receipt handles kept for deleted messages is bounded
- sending does not push to event source mappings; the local runner polls for them, as Lambda does
"""

from __future__ import annotations

import copy
import os
from base64 import b64encode
from collections import OrderedDict
from functools import lru_cache

from moto.core.utils import camelcase_to_underscores
from moto.sqs import models
from moto.sqs.exceptions import ReceiptHandleIsInvalid, SQSException
from moto.sqs.models import DEDUPLICATION_TIME_IN_SECONDS, Message, Queue, SQSBackend

from stream_app.local.moto_patches import clock
from stream_app.local.moto_patches.patch import add, replace
from stream_app.local.moto_patches.sqs.queue_store import QueueStore

_HANDLE_BYTES = 138
# A long poll checks at this interval whether its queue still exists.
_RECHECK_SECONDS = 1.0
_STATE = "_stream_app_state"


class QueueState:
    """Replaces moto's list of messages: the store, and the deduplication IDs with their times (ms)."""

    __slots__ = ("_seen", "store")

    def __init__(self) -> None:
        self.store = QueueStore()
        self._seen: OrderedDict[tuple[str | None, str], int] = OrderedDict()

    def is_duplicate(self, scope: str | None, deduplication_id: str, now: int) -> bool:
        """Return whether the ID was seen in the last five minutes, and record it if it was not."""
        while self._seen and now - next(iter(self._seen.values())) >= DEDUPLICATION_TIME_IN_SECONDS * 1_000:
            self._seen.popitem(last=False)
        if (scope, deduplication_id) in self._seen:
            return True
        self._seen[scope, deduplication_id] = now
        return False


def state_of(queue: Queue) -> QueueState:
    """Return the state of a moto queue. Hold the queue's `_messages_lock` for every access."""
    state = queue.__dict__.get(_STATE)
    if not isinstance(state, QueueState):
        state = queue.__dict__[_STATE] = QueueState()
    return state


def _get_messages(self: Queue) -> list[Message]:
    with self._messages_lock:
        return state_of(self).store.messages()


def _set_messages(self: Queue, messages: list[Message]) -> None:
    """Replace all messages. moto assigns an empty list to create or purge a queue. Deduplication IDs are kept."""
    state = state_of(self)
    state.store = QueueStore()
    for message in messages:
        state.store.add(message, _group(self, message), None)


def _get_visible(self: Queue) -> list[Message]:
    with self._messages_lock:
        return state_of(self).store.visible(clock.now_ms())


def _count(which: int) -> property:
    def count(self: Queue) -> int:
        with self._messages_lock:
            return state_of(self).store.counts(clock.now_ms())[which]

    return property(count)


def _group(queue: Queue, message: Message) -> str | None:
    return message.group_id if queue.fifo_queue else None


def add_message(self: Queue, message: Message) -> None:
    """Append a message, unless a FIFO queue received its deduplication ID in the last five minutes."""
    now = clock.now_ms()
    with self._messages_lock:
        state = state_of(self)
        if self.fifo_queue and message.deduplication_id:
            per_group = getattr(self, "deduplication_scope", "queue") == "messageGroup"
            if state.is_duplicate(message.group_id if per_group else None, message.deduplication_id, now):
                return
        due = message.delayed_until if message.delayed_until > now else None
        position = state.store.add(message, _group(self, message), due)
        if self.fifo_queue:
            message.sequence_number = str(188 * 10**17 + position)
        self._messages_lock.notify_all()


def delete_message(self: Queue, receipt_handle: str) -> None:
    """Remove the message with this receipt handle; repeating the call is not an error.

    Raises ReceiptHandleIsInvalid.
    """
    with self._messages_lock:
        if not state_of(self).store.delete(receipt_handle):
            raise ReceiptHandleIsInvalid


def receive_message(
    self: SQSBackend,
    queue_name: str,
    count: int,
    wait_seconds_timeout: int,
    visibility_timeout: int,
    message_attribute_names: list[str] | None = None,
) -> list[Message]:
    """Receive up to `count` messages, waiting up to `wait_seconds_timeout` for the first one."""
    until = clock.now_ms() + int(wait_seconds_timeout) * 1_000
    while True:
        queue = self.get_queue(queue_name)
        with queue._messages_lock:
            received, dead = _receive_available(queue, count, int(visibility_timeout))
            now = clock.now_ms()
            if not received and not dead and now < until:
                due = state_of(queue).store.next_due()
                pause = min(until, due if due is not None else until) - now
                queue._messages_lock.wait(min(max(pause, 1) / 1_000, _RECHECK_SECONDS))
                continue
        if queue.dead_letter_queue is not None:
            # Outside the lock, because the dead-letter queue has its own.
            for message in dead:
                queue.dead_letter_queue.add_message(message)
        if received or now >= until:
            return [_filtered_copy(message, message_attribute_names or []) for message in received]


def _receive_available(
    queue: Queue, count: int, visibility_timeout: int
) -> tuple[list[Message], list[Message]]:
    """Return the received messages, and those beyond `maxReceiveCount`, which go to the dead-letter queue."""
    now = clock.now_ms()
    oldest = now - int(getattr(queue, "message_retention_period", 0) or 0) * 1_000
    dead: list[Message] = []

    def deliver(message: Message) -> float | None:
        if int(message.sent_timestamp or 0) <= oldest:
            return None
        policy = queue.redrive_policy if queue.dead_letter_queue is not None else None
        if policy and message.approximate_receive_count >= policy["maxReceiveCount"]:
            dead.append(message)
            return None
        message.mark_received(visibility_timeout)
        return now + visibility_timeout * 1_000

    return state_of(queue).store.receive(now, count, deliver), dead


def _filtered_copy(message: Message, names: list[str]) -> Message:
    """Return a copy of the message with the requested attributes only."""
    copied = copy.copy(message)
    models._filter_message_attributes(copied, names)
    return copied


def change_message_visibility(
    self: SQSBackend, queue_name: str, receipt_handle: str, visibility_timeout: int
) -> None:
    """Change the visibility timeout of an in-flight message; 0 makes it visible immediately."""
    queue = self.get_queue(queue_name)
    with queue._messages_lock:
        store = state_of(queue).store
        if not store.has_handle(receipt_handle):
            raise ReceiptHandleIsInvalid
        now = clock.now_ms()
        message = store.postpone(receipt_handle, now, now + int(visibility_timeout) * 1_000)
        if message is None:
            raise SQSException("MessageNotInflight", "The specified message isn't in flight.")
        message.change_visibility(int(visibility_timeout))
        queue._messages_lock.notify_all()


def _receipt_handle() -> str:
    return b64encode(os.urandom(_HANDLE_BYTES)).decode()


def apply() -> None:
    """Install the patch."""
    add(Queue, "_messages", property(_get_messages, _set_messages))
    replace(Queue, "messages", property(_get_visible))
    replace(Queue, "approximate_number_of_messages", _count(0))
    replace(Queue, "approximate_number_of_messages_not_visible", _count(1))
    replace(Queue, "approximate_number_of_messages_delayed", _count(2))
    replace(Queue, "add_message", add_message)
    replace(Queue, "delete_message", delete_message)
    replace(SQSBackend, "receive_message", receive_message)
    replace(SQSBackend, "change_message_visibility", change_message_visibility)
    replace(models, "generate_receipt_handle", _receipt_handle)
    # moto converts the same fourteen names for each message sent.
    replace(models, "camelcase_to_underscores", lru_cache(maxsize=256)(camelcase_to_underscores))
