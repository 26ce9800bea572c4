"""The pipe runner: reads AWS::Pipes::Pipe from the template and makes of each what does the documented work."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from stream_app.local.deployers.dependencies import ClientFactory
from stream_app.local.deployers.deploy import Placed
from stream_app.local.deployers.intrinsics import wrong
from stream_app.local.pipes.counters import Counters
from stream_app.local.pipes.patterns import Reserved, compile_filters, compile_template
from stream_app.local.pipes.pipe_route import PipeRoute
from stream_app.local.pipes.queue_pipe import QueuePipe
from stream_app.local.pipes.queue_poller import MOST, Loop, Queue, QueueReader
from stream_app.local.pipes.shards import StreamReader
from stream_app.local.pipes.stream_pipe import Place, Rules, StreamPipe, iso
from stream_app.local.pipes.targets import ApiTarget, Post, StreamTarget, Target

PIPE = "AWS::Pipes::Pipe"
QUEUE = "AWS::SQS::Queue"
STREAM = "AWS::Kinesis::Stream"
API = "AWS::Events::ApiDestination"
HELPERS = 3

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

# Properties of a pipe that have no local counterpart, and why.
NOT_LOCAL_PROPERTIES: Mapping[str, str] = {
    "Description": "for people",
    "KmsKeyIdentifier": "nothing is encrypted at rest here",
    "LogConfiguration": "the runners log to stderr",
    "MaximumBatchingWindowInSeconds": "waiting for a fuller batch is AWS's economy and a laptop's delay",
    "ParallelizationFactor": "one batch of a shard at a time is the strictest order that AWS offers",
    "RoleArn": "the embedded AWS checks no permissions",
    "Tags": "for people",
}


class PipeDependencies(NamedTuple):
    """What pipes need from outside: clients, HTTP, the time in seconds since the epoch, chance."""

    clients: ClientFactory
    post: Post
    now: Callable[[], float]
    rng: random.Random


class Worker(NamedTuple):
    """Something to run: its kind and name, what it counts, and its loops, each for a thread of its own."""

    kind: str
    name: str
    counters: Counters
    loops: Sequence[Loop]


def pipes(placed: Sequence[Placed], dependencies: PipeDependencies) -> list[Worker]:
    """A worker for each pipe that is not stopped. Raises ConfigError for what is not known here."""
    running = [i for i in placed if i.type == PIPE and i.properties.get("DesiredState") != "STOPPED"]
    return [_worker(item, placed, dependencies) for item in running]


def by_arn(placed: Sequence[Placed], arn: str) -> Placed:
    """The resource of that ARN. Raises ConfigError when the template has none."""
    for item in placed:
        if item.attributes.get("Arn") == arn:
            return item
    raise wrong(f"{arn} is not in the template", "refer to a resource of it")


def queue_of(item: Placed, region: str) -> Queue:
    """A queue of the template, as its readers know it."""
    redrive = item.properties.get("RedrivePolicy") or {}
    return Queue(
        url=item.attributes["Ref"],
        arn=item.attributes["Arn"],
        region=region,
        fifo=bool(item.properties.get("FifoQueue")),
        last_chance=redrive.get("maxReceiveCount"),
    )


def known_only(item: Placed, section: Mapping[str, Any], known: set[str]) -> None:
    """Raises ConfigError naming what of a section the runners do not know."""
    unknown = sorted(set(section) - known - set(NOT_LOCAL_PROPERTIES))
    if unknown:
        raise wrong(f"{item.id} has {', '.join(unknown)}", "teach stream_app.local.pipes.runner of it")


def _worker(item: Placed, placed: Sequence[Placed], dependencies: PipeDependencies) -> Worker:
    known_only(item, item.properties, _PIPE)
    known_only(item, item.properties.get("SourceParameters", {}), _SOURCE)
    source = by_arn(placed, item.properties["Source"])
    makers = {QUEUE: _from_queue, STREAM: _from_stream}
    if source.type not in makers:
        raise wrong(f"{item.id} reads a {source.type}", f"known are {', '.join(makers)}")
    return makers[source.type](item, source, placed, dependencies)


def _from_queue(
    item: Placed, source: Placed, placed: Sequence[Placed], dependencies: PipeDependencies
) -> Worker:
    own = item.properties.get("SourceParameters", {}).get("SqsQueueParameters", {})
    known_only(item, own, {"BatchSize"})
    sqs, counters = dependencies.clients("sqs"), Counters()
    queue = queue_of(source, sqs.meta.region_name)
    way = _way(item, placed, dependencies, "body", lambda raw: str(raw["body"]).encode())
    pipe = QueuePipe(way, queue, counters, dependencies.rng)
    batch = int(own.get("BatchSize", MOST))
    reader = QueueReader(sqs, queue, pipe.handle, counters, batch=batch, helpers=HELPERS)
    return Worker("pipe", way.name, counters, reader.loops)


def _from_stream(
    item: Placed, source: Placed, placed: Sequence[Placed], dependencies: PipeDependencies
) -> Worker:
    own = item.properties["SourceParameters"]["KinesisStreamParameters"]
    known_only(item, own, _STREAM)
    kinesis, counters = dependencies.clients("kinesis"), Counters()
    way = _way(item, placed, dependencies, "data", lambda raw: base64.b64decode(raw["data"]))
    rules = _rules(item, own, placed)
    if rules.batch > way.target.most:
        raise wrong(f"{item.id} has BatchSize {rules.batch}", f"its target takes {way.target.most} at a time")
    place = Place(source.attributes["Arn"], str(item.properties["RoleArn"]), kinesis.meta.region_name)
    pipe = StreamPipe(
        way, rules, place, dependencies.clients("sqs"), counters, now=dependencies.now, rng=dependencies.rng
    )
    start = {"ShardIteratorType": own["StartingPosition"]}
    if "StartingPositionTimestamp" in own:
        start["Timestamp"] = own["StartingPositionTimestamp"]
    reader = StreamReader(kinesis, place.stream, start, pipe.take)
    return Worker("pipe", way.name, counters, reader.loops)


def _rules(item: Placed, own: Mapping[str, Any], placed: Sequence[Placed]) -> Rules:
    dead_letters = None
    if "DeadLetterConfig" in own:
        queue = by_arn(placed, own["DeadLetterConfig"]["Arn"])
        if queue.type != QUEUE:
            raise wrong(f"{item.id} sends its dead letters to a {queue.type}", f"send them to a {QUEUE}")
        dead_letters = str(queue.attributes["Ref"])
    return Rules(
        batch=int(own.get("BatchSize", 100)),
        attempts=int(own.get("MaximumRetryAttempts", -1)),
        seconds=int(own.get("MaximumRecordAgeInSeconds", -1)),
        bisect=own.get("OnPartialBatchItemFailure") == "AUTOMATIC_BISECT",
        dead_letters=dead_letters,
    )


def _way(
    item: Placed,
    placed: Sequence[Placed],
    dependencies: PipeDependencies,
    payload: str,
    body: Callable[[Mapping[str, Any]], bytes],
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
        target=_target(item, parameters, placed, dependencies),
    )


def _reserved(item: Placed, dependencies: PipeDependencies) -> Reserved:
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
    item: Placed, parameters: Mapping[str, Any], placed: Sequence[Placed], dependencies: PipeDependencies
) -> Target:
    target = by_arn(placed, item.properties["Target"])
    if target.type == STREAM:
        return StreamTarget(dependencies.clients("kinesis"), target.attributes["Arn"], parameters)
    if target.type == API:
        return ApiTarget(dependencies.post, target.properties, parameters)
    raise wrong(f"{item.id} sends to a {target.type}", f"known are {STREAM}, {API}")
