"""Helper functions for queues of the embedded AWS and the function that reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Clients = Callable[[str], Any]
PATH = "stream_app.lambdas.hydrate"


def waiting_in(clients: Clients, url: str, *names: str) -> int:
    """Return the number of messages in a queue, by default including those in flight."""
    names = names or ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
    attributes = clients("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=list(names))["Attributes"]
    return sum(int(attributes[name]) for name in names)


def send(clients: Clients, url: str, count: int, body: str = "{}") -> None:
    for start in range(0, count, 10):
        entries = [{"Id": str(n), "MessageBody": body} for n in range(min(10, count - start))]
        clients("sqs").send_message_batch(QueueUrl=url, Entries=entries)
