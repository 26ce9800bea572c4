"""The function runner: calls the Python handlers for each AWS::Lambda::EventSourceMapping of the template.

As with Lambda, the messages of a batch are deleted if the handler returns, except those that it reports as failed. If
the handler raises an exception, the whole batch becomes visible again after the visibility timeout, and finally goes
to the queue's dead-letter queue.
"""

from __future__ import annotations

import importlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stream_app.aws.clients import ClientFactory
from stream_app.local.deployers.deploy import StackResource
from stream_app.local.deployers.intrinsics import template_error
from stream_app.local.pipes.counters import Counters
from stream_app.local.pipes.queue_reader import MAX_MESSAGES, Message, Queue, QueueReader, sqs_record
from stream_app.local.pipes.runner import QUEUE, Worker, check_supported, find_by_arn, queue_from
from stream_app.telemetry import log

MAPPING = "AWS::Lambda::EventSourceMapping"
FUNCTION = "AWS::Lambda::Function"
REPORT = "ReportBatchItemFailures"

# A Lambda handler of the application. Its event, context and result have no common type.
Handler = Callable[..., Any]

_KNOWN = {
    "BatchSize",
    "Enabled",
    "EventSourceArn",
    "FunctionName",
    "FunctionResponseTypes",
    "MaximumBatchingWindowInSeconds",
    "ScalingConfig",
}
_MAX_BATCH, _MAX_WINDOW = 10_000, 300


@dataclass(frozen=True, slots=True)
class Context:
    """The Lambda context object. The runner does not enforce the timeout of an invocation."""

    function_name: str
    invoked_function_arn: str
    memory_limit_in_mb: int
    aws_request_id: str
    deadline: float
    function_version: str = "$LATEST"

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until Lambda would time out the invocation."""
        return max(0, round((self.deadline - time.monotonic()) * 1000))


def functions(
    resources: Sequence[StackResource], clients: ClientFactory, handlers: Mapping[str, Handler] | None = None
) -> list[Worker]:
    """Return a worker for each enabled event source mapping.

    Handlers are imported by their path unless `handlers` contains that path. Raises ConfigError for an unsupported
    mapping or a missing handler.
    """
    enabled = [i for i in resources if i.type == MAPPING and i.properties.get("Enabled", True)]
    return [_worker(item, resources, clients, handlers or {}) for item in enabled]


def _worker(
    item: StackResource,
    resources: Sequence[StackResource],
    clients: ClientFactory,
    handlers: Mapping[str, Handler],
) -> Worker:
    check_supported(item, item.properties, _KNOWN)
    source = find_by_arn(resources, item.properties["EventSourceArn"])
    if source.type != QUEUE:
        what = f"{item.id} has an unsupported event source of type {source.type}"
        raise template_error(what, f"use a resource of type {QUEUE}")
    function = _function(resources, item.properties["FunctionName"])
    path = str(function.properties["Handler"])
    sqs, counters = clients("sqs"), Counters()
    queue = queue_from(source, sqs.meta.region_name)
    reports = REPORT in item.properties.get("FunctionResponseTypes", ())
    invoker = Invoker(handlers.get(path) or resolve(path), function, queue, counters, reports=reports)
    batch, window = _batching(item, fifo=queue.fifo)
    reader = QueueReader(sqs, queue, invoker.handle, counters, batch=batch, window=window)
    return Worker("function", str(function.attributes["Name"]), counters, reader.loops)


def _batching(item: StackResource, *, fifo: bool) -> tuple[int, int]:
    """Return batch size and batching window in seconds. Raises ConfigError for values that Lambda rejects."""
    batch = int(item.properties.get("BatchSize", MAX_MESSAGES))
    window = int(item.properties.get("MaximumBatchingWindowInSeconds", 0))
    if fifo and window:
        raise template_error(f"{item.id} has a batching window", "remove it: FIFO queues do not support one")
    if not 0 <= window <= _MAX_WINDOW:
        raise template_error(f"{item.id} has a batching window of {window} s", f"use 0 to {_MAX_WINDOW}")
    max_batch = MAX_MESSAGES if fifo else _MAX_BATCH
    if not 1 <= batch <= max_batch:
        raise template_error(f"{item.id} has BatchSize {batch}", f"use 1 to {max_batch}")
    if batch > MAX_MESSAGES and not window:
        hint = f"set MaximumBatchingWindowInSeconds to at least 1, or BatchSize to at most {MAX_MESSAGES}"
        raise template_error(f"{item.id} has BatchSize {batch} and no batching window", hint)
    return batch, window


def _function(resources: Sequence[StackResource], name: str) -> StackResource:
    for item in resources:
        if item.type == FUNCTION and name in (item.attributes["Ref"], item.attributes["Arn"]):
            return item
    raise template_error(f"{name} is not in the template", "refer to a function of the template")


def variables(resources: Sequence[StackResource]) -> dict[str, str]:
    """Return the environment variables of all functions, which run in one process.

    Raises ConfigError if two functions set a variable to different values.
    """
    found: dict[str, str] = {}
    for item in resources:
        if item.type == FUNCTION:
            for name, value in item.properties.get("Environment", {}).get("Variables", {}).items():
                if found.setdefault(name, str(value)) != str(value):
                    raise template_error(
                        f"{item.id} wants another {name} than the others", "use one value, or another name"
                    )
    return found


def resolve(path: str) -> Handler:
    """Import the function named by a Handler property ("package.module.function"). Raises ConfigError."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise template_error(
            f"cannot import the handler {path}: {error}", "use package.module.function"
        ) from error
    handler: Handler = found
    return handler


class Invoker:
    """Calls a handler with batches of a queue, one at a time because handlers are not required to be thread-safe."""

    def __init__(
        self, handler: Handler, function: StackResource, queue: Queue, counters: Counters, *, reports: bool
    ) -> None:
        self._handler, self._function, self._queue = handler, function, queue
        self._counters, self._reports = counters, reports

    def handle(self, messages: Sequence[Message], stop: threading.Event) -> Collection[Message]:
        """Invoke the handler once. Returns the messages that succeeded."""
        try:
            event = {"Records": [sqs_record(message, self._queue) for message in messages]}
            answer = json.loads(json.dumps(self._handler(event, self._context())))
        except Exception as error:
            # As with Lambda, any exception fails the batch, which is then retried.
            log.get().error(
                "function failed", function=self._function.attributes["Name"], error=type(error).__name__
            )
            return ()
        failed = failures(answer, [m["MessageId"] for m in messages]) if self._reports else set()
        succeeded = [message for message in messages if message["MessageId"] not in failed]
        self._counters.add(delivered=len(succeeded))
        return succeeded

    def _context(self) -> Context:
        properties, attributes = self._function.properties, self._function.attributes
        return Context(
            function_name=str(attributes["Name"]),
            invoked_function_arn=str(attributes["Arn"]),
            memory_limit_in_mb=int(properties.get("MemorySize", 128)),
            aws_request_id=str(uuid.uuid4()),
            deadline=time.monotonic() + float(properties.get("Timeout", 3)),
        )


def failures(answer: object, sent: Sequence[str]) -> set[str]:
    """Return the message IDs that a ReportBatchItemFailures response reports as failed.

    An empty response or list means that all messages succeeded. An invalid list or an unknown ID means that all
    messages failed.
    """
    items = answer.get("batchItemFailures") if isinstance(answer, dict) else answer
    if not items:
        return set()
    if not isinstance(items, list):
        return set(sent)
    named = [item.get("itemIdentifier") if isinstance(item, dict) else None for item in items]
    return {str(name) for name in named} if set(named) <= set(sent) else set(sent)
