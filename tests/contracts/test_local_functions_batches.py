"""Batch size, batching window and payload limit of an event source mapping."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from stream_app.errors import ConfigError
from stream_app.local.deployers.deploy import StackResource, resolve_templates, templates
from stream_app.local.functions import functions
from stream_app.local.pipes.queue_reader import PAYLOAD_BYTES
from tests.contracts.local_queues import PATH, Clients, send, waiting_in

SHARDS = 1


def mapping_with(found: Sequence[StackResource], **properties: Any) -> list[StackResource]:
    return [
        item._replace(properties={**item.properties, **properties})
        if item.id == "Recovery.HydrateMapping"
        else item
        for item in found
    ]


def batches(
    clients: Clients, found: Sequence[StackResource], until: int, fed: Callable[[], None]
) -> list[int]:
    """Return the sizes of the batches that hydrate receives until a number of messages was delivered."""
    sizes: list[int] = []
    stop = threading.Event()

    def handler(event: Any, context: Any) -> None:
        sizes.append(len(event["Records"]))
        if sum(sizes) >= until:
            stop.set()

    [worker] = [w for w in functions(found, clients, {PATH: handler}) if w.name == "stream-app-hydrate"]
    feeder = threading.Thread(target=fed)
    feeder.start()
    worker.loops[0](stop)
    feeder.join()
    return sizes


def test_the_batch_size_is_applied(clients: Clients, outputs: dict[str, str]) -> None:
    send(clients, outputs["DeadLetterQueueUrl"], 250)
    found = resolve_templates(templates(), clients)
    assert batches(clients, found, 250, lambda: None) == [100, 100, 50]


def test_the_batching_window_is_applied(clients: Clients, outputs: dict[str, str]) -> None:
    """Messages that arrive within the window form one batch; without a window they do not."""
    url = outputs["DeadLetterQueueUrl"]
    first_seen = threading.Event()
    sqs = clients("sqs")
    receive = sqs.receive_message

    def watched(**request: Any) -> Any:
        answer = receive(**request)
        if answer.get("Messages"):
            first_seen.set()
        return answer

    sqs.receive_message = watched

    def fed() -> None:
        first_seen.clear()
        send(clients, url, 1)
        first_seen.wait(30)  # The window is open, or the batch was processed.
        send(clients, url, 12)

    found = resolve_templates(templates(), clients)
    waiting = mapping_with(found, MaximumBatchingWindowInSeconds=300, BatchSize=13)
    assert batches(clients, waiting, 13, fed) == [13]
    at_once = mapping_with(found, MaximumBatchingWindowInSeconds=0, BatchSize=10)
    assert batches(clients, at_once, 13, fed)[0] == 1


def test_a_stop_ends_the_batching_window(clients: Clients, outputs: dict[str, str]) -> None:
    """Received messages are processed, because they would otherwise stay hidden for the visibility timeout."""
    waiting = mapping_with(resolve_templates(templates(), clients), MaximumBatchingWindowInSeconds=300)
    sizes: list[int] = []
    stop = threading.Event()
    [worker] = [
        w
        for w in functions(waiting, clients, {PATH: lambda event, _: sizes.append(len(event["Records"]))})
        if w.name == "stream-app-hydrate"
    ]
    send(clients, outputs["DeadLetterQueueUrl"], 3)
    thread = threading.Thread(target=worker.loops[0], args=(stop,))
    thread.start()
    while waiting_in(clients, outputs["DeadLetterQueueUrl"], "ApproximateNumberOfMessages"):
        threading.Event().wait(0.01)
    assert sizes == []
    stop.set()
    thread.join(30)
    assert sizes == [3]


def test_a_batch_ends_at_the_payload_limit(clients: Clients, outputs: dict[str, str]) -> None:
    body = "x" * 25_000
    send(clients, outputs["DeadLetterQueueUrl"], 300, body)
    large = mapping_with(resolve_templates(templates(), clients), BatchSize=300)
    assert batches(clients, large, 300, lambda: None) == [PAYLOAD_BYTES // len(body), 60]


@pytest.mark.parametrize(("batch", "window"), [(11, 0), (100, 0), (0, 0), (10_001, 1), (100, 301), (100, -1)])
def test_invalid_batch_settings_are_rejected(clients: Clients, batch: int, window: int) -> None:
    found = resolve_templates(templates(), clients)
    changed = mapping_with(found, BatchSize=batch, MaximumBatchingWindowInSeconds=window)
    with pytest.raises(ConfigError, match="HydrateMapping has"):
        functions(changed, clients, {PATH: lambda event, context: None})
