"""Reading a queue as AWS's pollers do: batches out, the ones that are done deleted, the rest comes again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stream_app.errors import is_transient
from stream_app.local.pipes.counters import Counters
from stream_app.telemetry import log

Message = Mapping[str, Any]
Loop = Callable[[threading.Event], None]
# Takes messages, returns those that are done with.
Handle = Callable[[Sequence[Message], threading.Event], Collection[Message]]

MOST = 10  # of messages in one request, by SQS's own limit
_WAIT_SECONDS = 1
_PAUSE_SECONDS = 0.5
_DELETE_ATTEMPTS = 5
_GATHER_SECONDS = 0.1
# A batch that has come to this is handed on before its window ends: more than this no function is given.
PAYLOAD_BYTES = 6_000_000


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue to read. `last_chance` is its maxReceiveCount, if it has a dead letter queue."""

    url: str
    arn: str
    region: str
    fifo: bool
    last_chance: int | None


def sqs_record(message: Message, queue: Queue) -> dict[str, Any]:
    """A message in the form in which Lambda and Pipes hand it on."""
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


def receipts(message: Message) -> int:
    """How often it was received, this time included."""
    return int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1))


def group_of(message: Message) -> str | None:
    """Its message group; None in a standard queue."""
    group = message.get("Attributes", {}).get("MessageGroupId")
    return None if group is None else str(group)


class QueueReader:
    """Polls a queue in one thread, and in `helpers` more while there is a backlog.

    In a FIFO queue a group is with one thread at a time, because SQS gives out no more of it before the batch is
    deleted. An error of the world that may pass is waited out; any other ends the loop. A batch that is not full is
    waited for: `window` seconds from its first message on, unless told to stop.
    """

    def __init__(
        self,
        sqs: Any,
        queue: Queue,
        handle: Handle,
        counters: Counters,
        *,
        batch: int,
        window: float = 0,
        helpers: int = 0,
    ) -> None:
        self._sqs, self._queue, self._handle, self._counters = sqs, queue, handle, counters
        self._batch, self._window = batch, window
        self._backlog = threading.Event()
        self.loops: list[Loop] = [self._lead, *[self._help] * helpers]

    def _lead(self, stop: threading.Event) -> None:
        while not stop.is_set():
            count = self._turn(stop, _WAIT_SECONDS)
            # A full batch means that there is more, and that it is worth while to read side by side.
            if count >= self._batch:
                self._backlog.set()

    def _help(self, stop: threading.Event) -> None:
        while not stop.is_set():
            if self._backlog.wait(_PAUSE_SECONDS) and not self._turn(stop, 0):
                self._backlog.clear()

    def _turn(self, stop: threading.Event, wait: int) -> int:
        try:
            messages = self._gather(stop, wait)
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

    def _gather(self, stop: threading.Event, wait: int) -> list[Message]:
        """A full batch, or what has come when its window ends."""
        until, found = None, list[Message]()
        while len(found) < self._batch and sum(len(one["Body"]) for one in found) < PAYLOAD_BYTES:
            more = self._receive(self._batch - len(found), 0 if found else wait)
            found += more
            until = until or time.monotonic() + self._window
            if not found or (len(more) < MOST and self._is_over(until, stop)):
                break
        return found

    def _is_over(self, until: float, stop: threading.Event) -> bool:
        """Whether a window has ended, after a pause in which more may come."""
        left = until - time.monotonic()
        return left <= 0 or stop.wait(min(left, _GATHER_SECONDS))

    def _receive(self, most: int, wait: int) -> list[Message]:
        answer = self._sqs.receive_message(
            QueueUrl=self._queue.url,
            MaxNumberOfMessages=min(MOST, most),
            WaitTimeSeconds=wait,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        found: list[Message] = answer.get("Messages", [])
        return found

    def _delete(self, done: Collection[Message], stop: threading.Event) -> None:
        """A message that is not deleted comes again and is sent twice: that is worth some patience."""
        handles = [message["ReceiptHandle"] for message in done]
        for start in range(0, len(handles), MOST):
            part = handles[start : start + MOST]
            entries = [{"Id": str(n), "ReceiptHandle": handle} for n, handle in enumerate(part)]
            for attempt in range(1, _DELETE_ATTEMPTS + 1):
                left = self._deleted(entries, last=attempt == _DELETE_ATTEMPTS)
                entries = [entry for entry in entries if entry["Id"] in left]
                if not entries:
                    break
                stop.wait(_PAUSE_SECONDS)
            else:
                log.get().warning("messages were not deleted", queue=self._queue.arn, count=len(entries))

    def _deleted(self, entries: Sequence[Mapping[str, str]], *, last: bool) -> set[str]:
        """Delete once; the ids of those that another try may delete."""
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
        limit = self._queue.last_chance
        dead = sum(limit is not None and receipts(message) >= limit for message in left)
        self._counters.add(failed=len(left) - dead, dead_lettered=dead)
