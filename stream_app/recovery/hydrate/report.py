"""Metrics of a hydrated batch, and the parking of malformed messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from stream_app.aws.retry import call
from stream_app.recovery.hydrate.dependencies import Hydrated, HydrateDependencies, why
from stream_app.recovery.hydrate.events import Invocation, Message
from stream_app.recovery.hydrate.results import State
from stream_app.telemetry.emf import Metric, line

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import SendMessageRequestTypeDef

_MAX_REASON = 500
LEFT = "DeadLetterSecondsLeft"
MALFORMED = "DeadLettersMalformed"
COUNTS = {state: f"DeadLetters{state.value.capitalize()}" for state in State}
CONSUMER = "Consumer"


def park(invocation: Invocation, malformed: Mapping[int, str], dependencies: HydrateDependencies) -> set[int]:
    """Send malformed messages unchanged, with the reason as an attribute, to the parking queue.

    Returns the numbers of the parked messages. All others must be delivered again.
    """
    parked: set[int] = set()
    if not dependencies.parking or dependencies.sqs is None:
        return parked
    for at, reason in malformed.items():
        request = _request(invocation.messages[at], reason, dependencies.parking)
        try:
            _send(dependencies.sqs, request, dependencies)
        except Exception as error:
            dependencies.note("malformed message not parked", level="error", message=at, why=why(error))
            continue
        parked.add(at)
    return parked


def metrics(done: Hydrated, left: Mapping[str, float], dependencies: HydrateDependencies) -> Iterator[str]:
    """Yield a line per consumer: its dead letters by state, and the least time until a payload expired.

    The time is in seconds, negative for an expired payload; aggregate it with the minimum statistic. Malformed
    messages have no consumer and are counted for the application.
    """
    consumers = {result.dead_letter.consumer for result in done.results} | set(left)
    if done.malformed:
        consumers.add(dependencies.application)
    for consumer in sorted(consumers):
        states = [result.state for result in done.results if result.dead_letter.consumer == consumer]
        values = {name: Metric(states.count(state)) for state, name in COUNTS.items()}
        if consumer in left:
            values[LEFT] = Metric(round(left[consumer], 3), "Seconds")
        if consumer == dependencies.application:
            values[MALFORMED] = Metric(len(done.malformed))
        yield line(dependencies.application, {CONSUMER: consumer}, values, at_ms=dependencies.now_ms())


def _send(sqs: SQSClient, request: SendMessageRequestTypeDef, dependencies: HydrateDependencies) -> None:
    call(
        lambda: sqs.send_message(**request),
        dependencies.policy,
        sleep=dependencies.sleep,
        rng=dependencies.rng,
        what="park a malformed message",
    )


def _request(message: Message, reason: str, queue: str) -> SendMessageRequestTypeDef:
    text = "".join(char if char.isprintable() else " " for char in reason[:_MAX_REASON])
    attributes = {"reason": text or "malformed", "origin": message.origin or "unknown"}
    return {
        "QueueUrl": queue,
        "MessageBody": message.body or " ",
        "MessageAttributes": {
            name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
        },
    }
