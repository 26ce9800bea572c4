"""What hydrate says of a batch: metrics, and the parking of what is no dead letter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stream_app.aws.retry import call
from stream_app.recovery.hydrate.dependencies import Hydrated, World, why
from stream_app.recovery.hydrate.events import Invocation, Message
from stream_app.recovery.hydrate.results import State
from stream_app.telemetry.emf import Metric, line

_MOST_REASON = 500
LEFT = "DeadLetterSecondsLeft"
MALFORMED = "DeadLettersMalformed"
COUNTS = {state: f"DeadLetters{state.value.capitalize()}" for state in State}
CONSUMER = "Consumer"


def park(invocation: Invocation, malformed: Mapping[int, str], world: World) -> set[int]:
    """Send malformed messages to the parking queue, as they are, with the reason; returns those it has taken.

    Those that it has not must come again.
    """
    taken: set[int] = set()
    if not world.parking or world.sqs is None:
        return taken
    for at, reason in malformed.items():
        request = _request(invocation.messages[at], reason, world.parking)
        try:
            _send(request, world)
        except Exception as error:
            world.note("malformed message not parked", level="error", message=at, why=why(error))
            continue
        taken.add(at)
    return taken


def metrics(done: Hydrated, left: Mapping[str, float], world: World) -> Iterator[str]:
    """A line for each consumer: its letters by what became of them, and the shortest time that one had left.

    The time is in seconds, negative when a payload has gone; take its minimum. Malformed messages name no
    consumer and are the application's.
    """
    consumers = {result.letter.consumer for result in done.results} | set(left)
    if done.malformed:
        consumers.add(world.application)
    for consumer in sorted(consumers):
        states = [result.state for result in done.results if result.letter.consumer == consumer]
        told = {name: Metric(states.count(state)) for state, name in COUNTS.items()}
        if consumer in left:
            told[LEFT] = Metric(round(left[consumer], 3), "Seconds")
        if consumer == world.application:
            told[MALFORMED] = Metric(len(done.malformed))
        yield line(world.application, {CONSUMER: consumer}, told, at_ms=world.now_ms())


def _send(request: dict[str, Any], world: World) -> None:
    call(
        lambda: world.sqs.send_message(**request),
        world.policy,
        sleep=world.sleep,
        rng=world.rng,
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
