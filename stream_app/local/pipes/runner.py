"""The pipe runner: builds a worker for each AWS::Pipes::Pipe of the template."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from stream_app.aws.clients import ClientFactory
from stream_app.local.deployers.deploy import StackResource
from stream_app.local.deployers.intrinsics import Properties, template_error
from stream_app.local.pipes.counters import Counters
from stream_app.local.pipes.patterns import RawBody, Reserved, compile_filters, compile_template
from stream_app.local.pipes.pipe_route import PipeRoute
from stream_app.local.pipes.queue_pipe import QueuePipe
from stream_app.local.pipes.queue_reader import MAX_MESSAGES, Loop, Queue, QueueReader
from stream_app.local.pipes.stream_pipe import StreamPipe, StreamSettings, StreamSource, iso
from stream_app.local.pipes.stream_reader import StreamReader
from stream_app.local.pipes.targets import ApiTarget, SendRequest, StreamTarget, Target

PIPE = "AWS::Pipes::Pipe"
QUEUE = "AWS::SQS::Queue"
STREAM = "AWS::Kinesis::Stream"
API = "AWS::Events::ApiDestination"
EXTRA_THREADS = 3

_PIPE = {"DesiredState", "Name", "Source", "SourceParameters", "Target", "TargetParameters"}
_SOURCE = {"FilterCriteria", "KinesisStreamParameters", "SqsQueueParameters"}
_STREAM = {
    "BatchSize",
    "DeadLetterConfig",
    "MaximumRecordAgeInSeconds",
    "MaximumRetryAttempts",
    "OnPartialBatchItemFailure",
    "StartingPosition",
    "StartingPositionTimestamp",
}

# Properties of a pipe that have no local counterpart, with the reason.
UNSUPPORTED_PROPERTIES: Mapping[str, str] = {
    "Description": "documentation",
    "KmsKeyIdentifier": "the embedded AWS does not encrypt at rest",
    "LogConfiguration": "the runners log to stderr",
    "MaximumBatchingWindowInSeconds": "waiting for larger batches reduces cost on AWS but only adds latency locally",
    "ParallelizationFactor": "one batch per shard at a time is the strictest order that AWS offers",
    "RoleArn": "the embedded AWS does not check permissions",
    "Tags": "documentation",
}


class PipeDependencies(NamedTuple):
    """The external dependencies of pipes. `now` returns seconds since the epoch."""

    clients: ClientFactory
    send_request: SendRequest
    now: Callable[[], float]
    rng: random.Random


class Worker(NamedTuple):
    """A running pipe or function: its kind, name and counters, and its loops, each of which needs a thread."""

    kind: str
    name: str
    counters: Counters
    loops: Sequence[Loop]


def pipes(resources: Sequence[StackResource], dependencies: PipeDependencies) -> list[Worker]:
    """Return a worker for each pipe that is not stopped. Raises ConfigError for an unsupported pipe."""
    running = [i for i in resources if i.type == PIPE and i.properties.get("DesiredState") != "STOPPED"]
    return [_worker(item, resources, dependencies) for item in running]


def find_by_arn(resources: Sequence[StackResource], arn: str) -> StackResource:
    """Return the resource with this ARN. Raises ConfigError if the template has none."""
    for item in resources:
        if item.attributes.get("Arn") == arn:
            return item
    raise template_error(f"{arn} is not in the template", "refer to a resource of the template")


def queue_from(item: StackResource, region: str) -> Queue:
    """Return the queue of a template resource."""
    redrive = item.properties.get("RedrivePolicy") or {}
    return Queue(
        url=item.attributes["Ref"],
        arn=item.attributes["Arn"],
        region=region,
        fifo=bool(item.properties.get("FifoQueue")),
        max_receive_count=redrive.get("maxReceiveCount"),
    )


def check_supported(item: StackResource, section: Properties, known: set[str]) -> None:
    """Raise ConfigError if a section has properties that the runners do not support."""
    unknown = sorted(set(section) - known - set(UNSUPPORTED_PROPERTIES))
    if unknown:
        what = f"{item.id} has the unsupported properties {', '.join(unknown)}"
        raise template_error(what, "remove them, or support them in stream_app.local")


def _worker(
    item: StackResource, resources: Sequence[StackResource], dependencies: PipeDependencies
) -> Worker:
    check_supported(item, item.properties, _PIPE)
    check_supported(item, item.properties.get("SourceParameters", {}), _SOURCE)
    source = find_by_arn(resources, item.properties["Source"])
    builders = {QUEUE: _from_queue, STREAM: _from_stream}
    if source.type not in builders:
        what = f"{item.id} has an unsupported source of type {source.type}"
        raise template_error(what, f"use one of {', '.join(builders)}")
    return builders[source.type](item, source, resources, dependencies)


def _from_queue(
    item: StackResource,
    source: StackResource,
    resources: Sequence[StackResource],
    dependencies: PipeDependencies,
) -> Worker:
    own = item.properties.get("SourceParameters", {}).get("SqsQueueParameters", {})
    check_supported(item, own, {"BatchSize"})
    sqs, counters = dependencies.clients("sqs"), Counters()
    queue = queue_from(source, sqs.meta.region_name)
    route = _route(item, resources, dependencies, "body", lambda raw: str(raw["body"]).encode())
    pipe = QueuePipe(route, queue, counters, dependencies.rng)
    batch = int(own.get("BatchSize", MAX_MESSAGES))
    reader = QueueReader(sqs, queue, pipe.handle, counters, batch=batch, extra_threads=EXTRA_THREADS)
    return Worker("pipe", route.name, counters, reader.loops)


def _from_stream(
    item: StackResource,
    source: StackResource,
    resources: Sequence[StackResource],
    dependencies: PipeDependencies,
) -> Worker:
    own = item.properties["SourceParameters"]["KinesisStreamParameters"]
    check_supported(item, own, _STREAM)
    kinesis, counters = dependencies.clients("kinesis"), Counters()
    route = _route(item, resources, dependencies, "data", lambda raw: base64.b64decode(str(raw["data"])))
    settings = _stream_settings(item, own, resources)
    if settings.batch > route.target.max_batch:
        hint = f"use at most {route.target.max_batch}, the limit of its target"
        raise template_error(f"{item.id} has BatchSize {settings.batch}", hint)
    stream, role = source.attributes["Arn"], str(item.properties["RoleArn"])
    pipe = StreamPipe(
        route,
        settings,
        StreamSource(stream, role, kinesis.meta.region_name),
        dependencies.clients("sqs"),
        counters,
        now=dependencies.now,
        rng=dependencies.rng,
    )
    start = {"ShardIteratorType": own["StartingPosition"]}
    if "StartingPositionTimestamp" in own:
        start["Timestamp"] = own["StartingPositionTimestamp"]
    reader = StreamReader(kinesis, stream, start, pipe.deliver)
    return Worker("pipe", route.name, counters, reader.loops)


def _stream_settings(
    item: StackResource, own: Properties, resources: Sequence[StackResource]
) -> StreamSettings:
    dead_letters = None
    if "DeadLetterConfig" in own:
        queue = find_by_arn(resources, own["DeadLetterConfig"]["Arn"])
        if queue.type != QUEUE:
            what = f"{item.id} has a dead-letter target of type {queue.type}"
            raise template_error(what, f"use a resource of type {QUEUE}")
        dead_letters = str(queue.attributes["Ref"])
    return StreamSettings(
        batch=int(own.get("BatchSize", 100)),
        attempts=int(own.get("MaximumRetryAttempts", -1)),
        max_age_seconds=int(own.get("MaximumRecordAgeInSeconds", -1)),
        bisect=own.get("OnPartialBatchItemFailure") == "AUTOMATIC_BISECT",
        dead_letters=dead_letters,
    )


def _route(
    item: StackResource,
    resources: Sequence[StackResource],
    dependencies: PipeDependencies,
    payload: str,
    body: RawBody,
) -> PipeRoute:
    filters = item.properties.get("SourceParameters", {}).get("FilterCriteria", {}).get("Filters", ())
    parameters = item.properties.get("TargetParameters", {})
    name, arn = str(item.attributes["Name"]), str(item.attributes["Arn"])
    return PipeRoute(
        name=name,
        arn=arn,
        payload=payload,
        body=body,
        matches=compile_filters([entry["Pattern"] for entry in filters]),
        transform=compile_template(
            parameters.get("InputTemplate"), payload, body, _reserved(item, dependencies)
        ),
        target=_target(item, parameters, resources, dependencies),
    )


def _reserved(item: StackResource, dependencies: PipeDependencies) -> Reserved:
    fixed = {
        "aws.pipes.pipe-arn": item.attributes["Arn"],
        "aws.pipes.pipe-name": item.attributes["Name"],
        "aws.pipes.source-arn": item.properties["Source"],
        "aws.pipes.target-arn": item.properties["Target"],
    }

    return {
        **{name: partial(str, text) for name, text in fixed.items()},
        "aws.pipes.event.ingestion-time": lambda: iso(dependencies.now()),
    }


def _target(
    item: StackResource,
    parameters: Properties,
    resources: Sequence[StackResource],
    dependencies: PipeDependencies,
) -> Target:
    target = find_by_arn(resources, item.properties["Target"])
    if target.type == STREAM:
        return StreamTarget(dependencies.clients("kinesis"), target.attributes["Arn"], parameters)
    if target.type == API:
        return ApiTarget(dependencies.send_request, target.properties, parameters)
    what = f"{item.id} has an unsupported target of type {target.type}"
    raise template_error(what, f"use {STREAM} or {API}")
