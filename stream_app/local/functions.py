"""The function runner: reads AWS::Lambda::EventSourceMapping from the template and calls the Python handlers.

As Lambda does: a batch that the handler answers is deleted, except the messages that it reports as failed; when it
raises, the whole batch comes again after the visibility timeout, and ends in the queue's dead letter queue.
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

from stream_app.local.deployers.dependencies import ClientFactory
from stream_app.local.deployers.deploy import Placed
from stream_app.local.deployers.intrinsics import wrong
from stream_app.local.pipes.counters import Counters
from stream_app.local.pipes.queue_poller import MOST, Message, Queue, QueueReader, sqs_record
from stream_app.local.pipes.runner import QUEUE, Worker, by_arn, known_only, queue_of
from stream_app.telemetry import log

MAPPING = "AWS::Lambda::EventSourceMapping"
FUNCTION = "AWS::Lambda::Function"
REPORT = "ReportBatchItemFailures"

Handler = Callable[[Mapping[str, Any], Any], Any]

_KNOWN = {
    "BatchSize",
    "Enabled",
    "EventSourceArn",
    "FunctionName",
    "FunctionResponseTypes",
    "MaximumBatchingWindowInSeconds",
    "ScalingConfig",
}
_MOST_BATCH, _MOST_WINDOW = 10_000, 300


@dataclass(frozen=True, slots=True)
class Context:
    """What Lambda tells a handler of its invocation. Nothing ends an invocation that takes too long here."""

    function_name: str
    invoked_function_arn: str
    memory_limit_in_mb: int
    aws_request_id: str
    deadline: float
    function_version: str = "$LATEST"

    @property
    def log_group_name(self) -> str:
        """Where AWS would keep its log."""
        return f"/aws/lambda/{self.function_name}"

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until AWS would end it."""
        return max(0, round((self.deadline - time.monotonic()) * 1000))


def functions(
    placed: Sequence[Placed], clients: ClientFactory, handlers: Mapping[str, Handler] | None = None
) -> list[Worker]:
    """A worker for each mapping that is enabled.

    A function's Handler is imported by its path, unless `handlers` has one for that path. Raises ConfigError for
    what is not known here, and for a handler that is not there.
    """
    enabled = [i for i in placed if i.type == MAPPING and i.properties.get("Enabled", True)]
    return [_worker(item, placed, clients, handlers or {}) for item in enabled]


def _worker(
    item: Placed, placed: Sequence[Placed], clients: ClientFactory, handlers: Mapping[str, Handler]
) -> Worker:
    known_only(item, item.properties, _KNOWN)
    source = by_arn(placed, item.properties["EventSourceArn"])
    if source.type != QUEUE:
        raise wrong(f"{item.id} reads a {source.type}", f"read a {QUEUE}")
    function = _function(placed, item.properties["FunctionName"])
    path = str(function.properties["Handler"])
    sqs, counters = clients("sqs"), Counters()
    queue = queue_of(source, sqs.meta.region_name)
    reports = REPORT in item.properties.get("FunctionResponseTypes", ())
    invoker = Invoker(handlers.get(path) or resolve(path), function, queue, counters, reports=reports)
    batch, window = _batching(item, fifo=queue.fifo)
    reader = QueueReader(sqs, queue, invoker.handle, counters, batch=batch, window=window)
    return Worker("function", str(function.attributes["Name"]), counters, reader.loops)


def _batching(item: Placed, *, fifo: bool) -> tuple[int, int]:
    """How many messages a batch has, and for how many seconds it is waited for. Raises ConfigError as Lambda does."""
    batch = int(item.properties.get("BatchSize", MOST))
    window = int(item.properties.get("MaximumBatchingWindowInSeconds", 0))
    if fifo and window:
        raise wrong(f"{item.id} has a batching window", "a FIFO queue has none: leave it out")
    if not 0 <= window <= _MOST_WINDOW:
        raise wrong(f"{item.id} has a batching window of {window} s", f"give 0 to {_MOST_WINDOW}")
    most = MOST if fifo else _MOST_BATCH
    if not 1 <= batch <= most:
        raise wrong(f"{item.id} has BatchSize {batch}", f"give 1 to {most}")
    if batch > MOST and not window:
        hint = f"set MaximumBatchingWindowInSeconds to 1 at least, or BatchSize to {MOST} at the most"
        raise wrong(f"{item.id} has BatchSize {batch} and no batching window", hint)
    return batch, window


def _function(placed: Sequence[Placed], name: str) -> Placed:
    for item in placed:
        if item.type == FUNCTION and name in (item.attributes["Ref"], item.attributes["Arn"]):
            return item
    raise wrong(f"no function {name} in the template", "refer to a function of it")


def variables(placed: Sequence[Placed]) -> dict[str, str]:
    """The environment that the functions ask for. Here one process has them all: two values are a ConfigError."""
    found: dict[str, str] = {}
    for item in placed:
        if item.type == FUNCTION:
            for name, value in item.properties.get("Environment", {}).get("Variables", {}).items():
                if found.setdefault(name, str(value)) != str(value):
                    raise wrong(
                        f"{item.id} wants another {name} than the others", "use one value, or another name"
                    )
    return found


def resolve(path: str) -> Handler:
    """The function that a Handler property names ("package.module.function"). Raises ConfigError."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise wrong(f"no handler {path}: {error}", "name package.module.function") from error
    handler: Handler = found
    return handler


class Invoker:
    """Calls a handler with batches of a queue. One at a time: on AWS each has a process of its own."""

    def __init__(
        self, handler: Handler, function: Placed, queue: Queue, counters: Counters, *, reports: bool
    ) -> None:
        self._handler, self._function, self._queue = handler, function, queue
        self._counters, self._reports = counters, reports

    def handle(self, messages: Sequence[Message], stop: threading.Event) -> Collection[Message]:
        """Invoke once; returns the messages that succeeded."""
        try:
            event = {"Records": [sqs_record(message, self._queue) for message in messages]}
            answer = json.loads(json.dumps(self._handler(event, self._context())))
        except Exception as error:
            # A handler may fail in any way at all; Lambda would note it and try again.
            log.get().error(
                "function failed", function=self._function.attributes["Name"], error=type(error).__name__
            )
            return ()
        failed = failures(answer, [m["MessageId"] for m in messages]) if self._reports else set()
        done = [message for message in messages if message["MessageId"] not in failed]
        self._counters.add(delivered=len(done))
        return done

    def _context(self) -> Context:
        properties, attributes = self._function.properties, self._function.attributes
        return Context(
            function_name=str(attributes["Name"]),
            invoked_function_arn=str(attributes["Arn"]),
            memory_limit_in_mb=int(properties.get("MemorySize", 128)),
            aws_request_id=str(uuid.uuid4()),
            deadline=time.monotonic() + float(properties.get("Timeout", 3)),
        )


def failures(answer: Any, sent: Sequence[str]) -> set[str]:
    """The ids of the messages that an answer of ReportBatchItemFailures names.

    An empty answer or list means that all succeeded; anything but a list of ids that were sent, that all failed.
    """
    items = answer.get("batchItemFailures") if isinstance(answer, dict) else answer
    if not items:
        return set()
    if not isinstance(items, list):
        return set(sent)
    named = [item.get("itemIdentifier") if isinstance(item, dict) else None for item in items]
    return {str(name) for name in named} if set(named) <= set(sent) else set(sent)
