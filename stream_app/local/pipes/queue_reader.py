"""Polls a queue like the pollers of Lambda and Pipes: receives batches and deletes the messages that succeeded.

All other messages become visible again after their visibility timeout.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stream_app.errors import is_transient
from stream_app.local.pipes.counters import Counters
from stream_app.telemetry import log

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import DeleteMessageBatchRequestEntryTypeDef

# A message of ReceiveMessage. Not boto3-stubs' own type, because tests and handlers pass plain dictionaries.
Message = Mapping[str, Any]
Loop = Callable[[threading.Event], None]
# Processes messages and returns those that succeeded.
Handle = Callable[[Sequence[Message], threading.Event], Collection[Message]]

MAX_MESSAGES = 10  # per SQS request
_WAIT_SECONDS = 1
_PAUSE_SECONDS = 0.5
_DELETE_ATTEMPTS = 5
_POLL_SECONDS = 0.1
# A batch of this size is processed before its window ends: it is the limit for the payload of a Lambda function.
PAYLOAD_BYTES = 6_000_000


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue to read. `max_receive_count` is unset if it has no dead-letter queue."""

    url: str
    arn: str
    region: str
    fifo: bool
    max_receive_count: int | None


def sqs_record(message: Message, queue: Queue) -> dict[str, object]:
    """Convert a message to the record that Lambda and Pipes pass on."""
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message.get("Attributes", {}),
        "messageAttributes": {
            name: {_camel(key): part for key, part in value.items()}
            for name, value in message.get("MessageAttributes", {}).items()
        },
        "md5OfBody": message.get("MD5OfBody", ""),
        "eventSource": "aws:sqs",
        "eventSourceARN": queue.arn,
        "awsRegion": queue.region,
    }


def _camel(name: str) -> str:
    return name[:1].lower() + name[1:]


def receive_count(message: Message) -> int:
    """Return how often the message was received, including this time."""
    return int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1))


def group_of(message: Message) -> str | None:
    """Return the message group ID; None for a standard queue."""
    group = message.get("Attributes", {}).get("MessageGroupId")
    return None if group is None else str(group)


class QueueReader:
    """Polls a queue in one thread, plus `extra_threads` while there is a backlog.

    Messages of one FIFO group are processed by one thread at a time, because SQS returns no more of the group until
    the batch is deleted. After a transient error the queue is polled again; any other error ends the loop. A partial
    batch is completed for up to `window` seconds after its first message.
    """

    def __init__(
        self,
        sqs: SQSClient,
        queue: Queue,
        handle: Handle,
        counters: Counters,
        *,
        batch: int,
        window: float = 0,
        extra_threads: int = 0,
    ) -> None:
        self._sqs, self._queue, self._handle, self._counters = sqs, queue, handle, counters
        self._batch, self._window = batch, window
        self._backlog = threading.Event()
        self.loops: list[Loop] = [self._poll, *[self._poll_backlog] * extra_threads]

    def _poll(self, stop: threading.Event) -> None:
        while not stop.is_set():
            count = self._poll_once(stop, _WAIT_SECONDS)
            # A full batch indicates a backlog, so the extra threads start polling.
            if count >= self._batch:
                self._backlog.set()

    def _poll_backlog(self, stop: threading.Event) -> None:
        while not stop.is_set():
            if self._backlog.wait(_PAUSE_SECONDS) and not self._poll_once(stop, 0):
                self._backlog.clear()

    def _poll_once(self, stop: threading.Event, wait: int) -> int:
        try:
            messages = self._collect_batch(stop, wait)
            if messages:
                self._counters.add(received=len(messages))
                done = self._handle(messages, stop)
                self._delete(done, stop)
                self._count_left(messages, done)
            return len(messages)
        except Exception as error:
            if not is_transient(error):
                raise
            if not stop.wait(_PAUSE_SECONDS):
                log.get().warning("queue is out of reach", queue=self._queue.arn, error=type(error).__name__)
            return 0

    def _collect_batch(self, stop: threading.Event, wait: int) -> list[Message]:
        """Receive a full batch, or the messages that arrive within the batching window."""
        until, found = None, list[Message]()
        while len(found) < self._batch and sum(len(one["Body"]) for one in found) < PAYLOAD_BYTES:
            more = self._receive(self._batch - len(found), 0 if found else wait)
            found += more
            until = until or time.monotonic() + self._window
            if not found or (len(more) < MAX_MESSAGES and self._window_ends(until, stop)):
                break
        return found

    def _window_ends(self, until: float, stop: threading.Event) -> bool:
        """Return whether the batching window has ended, after a pause for more messages to arrive."""
        left = until - time.monotonic()
        return left <= 0 or stop.wait(min(left, _POLL_SECONDS))

    def _receive(self, count: int, wait: int) -> Sequence[Message]:
        answer = self._sqs.receive_message(
            QueueUrl=self._queue.url,
            MaxNumberOfMessages=min(MAX_MESSAGES, count),
            WaitTimeSeconds=wait,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        return answer.get("Messages", [])

    def _delete(self, done: Collection[Message], stop: threading.Event) -> None:
        """Delete processed messages, with retries, because a message that is not deleted is processed again."""
        handles = [message["ReceiptHandle"] for message in done]
        for start in range(0, len(handles), MAX_MESSAGES):
            part = handles[start : start + MAX_MESSAGES]
            entries: list[DeleteMessageBatchRequestEntryTypeDef] = [
                {"Id": str(n), "ReceiptHandle": handle} for n, handle in enumerate(part)
            ]
            for attempt in range(1, _DELETE_ATTEMPTS + 1):
                retriable = self._delete_batch(entries, last=attempt == _DELETE_ATTEMPTS)
                entries = [entry for entry in entries if entry["Id"] in retriable]
                if not entries:
                    break
                stop.wait(_PAUSE_SECONDS)
            else:
                log.get().warning("messages were not deleted", queue=self._queue.arn, count=len(entries))

    def _delete_batch(
        self, entries: Sequence[DeleteMessageBatchRequestEntryTypeDef], *, last: bool
    ) -> set[str]:
        """Delete a batch once. Returns the IDs of the entries that failed and can be retried."""
        try:
            answer = self._sqs.delete_message_batch(QueueUrl=self._queue.url, Entries=entries)
        except Exception as error:
            if last or not is_transient(error):
                raise
            return {entry["Id"] for entry in entries}
        return {failed["Id"] for failed in answer.get("Failed", ()) if not failed.get("SenderFault")}

    def _count_left(self, messages: Sequence[Message], done: Collection[Message]) -> None:
        finished = {message["MessageId"] for message in done}
        left = [message for message in messages if message["MessageId"] not in finished]
        limit = self._queue.max_receive_count
        dead = sum(limit is not None and receive_count(message) >= limit for message in left)
        self._counters.add(failed=len(left) - dead, dead_lettered=dead)
