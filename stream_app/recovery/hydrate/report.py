"""What hydrate says of a batch: metrics, and the parking of what is no dead letter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stream_app.aws.retry import call
from stream_app.recovery.hydrate.dependencies import Hydrated, HydrateDependencies, why
from stream_app.recovery.hydrate.events import Invocation, Message
from stream_app.recovery.hydrate.results import State
from stream_app.telemetry.emf import Metric, line

_MOST_REASON = 500
LEFT = "DeadLetterSecondsLeft"
MALFORMED = "DeadLettersMalformed"
COUNTS = {state: f"DeadLetters{state.value.capitalize()}" for state in State}
CONSUMER = "Consumer"


def park(invocation: Invocation, malformed: Mapping[int, str], dependencies: HydrateDependencies) -> set[int]:
    """Send malformed messages to the parking queue, as they are, with the reason; returns those it has taken.

    Those that it has not must come again.
    """
    taken: set[int] = set()
    if not dependencies.parking or dependencies.sqs is None:
        return taken
    for at, reason in malformed.items():
        request = _request(invocation.messages[at], reason, dependencies.parking)
        try:
            _send(request, dependencies)
        except Exception as error:
            dependencies.note("malformed message not parked", level="error", message=at, why=why(error))
            continue
        taken.add(at)
    return taken


def metrics(done: Hydrated, left: Mapping[str, float], dependencies: HydrateDependencies) -> Iterator[str]:
    """A line for each consumer: its letters by what became of them, and the shortest time that one had left.

    The time is in seconds, negative when a payload has gone; take its minimum. Malformed messages name no
    consumer and are the application's.
    """
    consumers = {result.letter.consumer for result in done.results} | set(left)
    if done.malformed:
        consumers.add(dependencies.application)
    for consumer in sorted(consumers):
        states = [result.state for result in done.results if result.letter.consumer == consumer]
        told = {name: Metric(states.count(state)) for state, name in COUNTS.items()}
        if consumer in left:
            told[LEFT] = Metric(round(left[consumer], 3), "Seconds")
        if consumer == dependencies.application:
            told[MALFORMED] = Metric(len(done.malformed))
        yield line(dependencies.application, {CONSUMER: consumer}, told, at_ms=dependencies.now_ms())


def _send(request: dict[str, Any], dependencies: HydrateDependencies) -> None:
    call(
        lambda: dependencies.sqs.send_message(**request),
        dependencies.policy,
        sleep=dependencies.sleep,
        rng=dependencies.rng,
        what="park a malformed message",
    )


def _request(message: Message, reason: str, queue: str) -> dict[str, Any]:
    said = "".join(char if char.isprintable() else " " for char in reason[:_MOST_REASON])
    attributes = {"reason": said or "malformed", "origin": message.origin or "unknown"}
    return {
        "QueueUrl": queue,
        "MessageBody": message.body or " ",
        "MessageAttributes": {
            name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
        },
    }
