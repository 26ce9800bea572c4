"""Hydrates a batch of dead letters: reads their records from the stream and stores failures on S3."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

from stream_app.aws.objects import get
from stream_app.errors import TransientError
from stream_app.recovery.dead_letters import DeadLetter
from stream_app.recovery.hydrate.dependencies import Hydrated, HydrateDependencies, Result, why
from stream_app.recovery.hydrate.events import Invocation, messages
from stream_app.recovery.hydrate.ranges import hydrate_ranges
from stream_app.recovery.hydrate.records import hydrate_records
from stream_app.recovery.hydrate.report import metrics, park
from stream_app.recovery.hydrate.results import State, drop_waiting, put_waiting
from stream_app.recovery.hydrate.shapes import AnyDeadLetter, Pointer, Range, read
from stream_app.recovery.stream.retention import Retention

__all__ = ["HydrateDependencies", "Hydrated", "Result", "handler", "hydrate", "hydrate_batch"]


# The response to Lambda (`ReportBatchItemFailures`): {"batchItemFailures": [{"itemIdentifier": id}, …]}.
Answer = dict[str, list[dict[str, str]]]


def hydrate(dead_letters: Sequence[AnyDeadLetter], dependencies: HydrateDependencies) -> Hydrated:
    """Hydrate dead letters and return a result for each, in any order, with its index `at`. Idempotent.

    Never raises: an error leaves the affected dead letter waiting.
    """
    return Hydrated(list(_results(list(enumerate(dead_letters)), dependencies)))


def hydrate_batch(event: Mapping[str, object], dependencies: HydrateDependencies) -> tuple[Answer, Hydrated]:
    """Hydrate the dead letters of a Lambda event. The answer lists the messages that must be delivered again.

    A dead letter that could not be hydrated is waiting: its metadata is stored with the retention deadline of its
    payload. A malformed message goes to the parking queue; without one, the queue's redrive policy applies. Raises
    TransientError if messages failed and only the whole event can be retried (SNS, S3), and ValueError if the event
    source is unknown.
    """
    invocation = messages(event)
    done, retention = Hydrated(), dependencies.stream_retention()
    dead_letters = _dead_letters(invocation, dependencies, done)
    # Measured before hydration: the time that the most urgent dead letter had left.
    left = _seconds_left(dead_letters, retention)
    done.results += _results(dead_letters, dependencies)
    _update_waiting(invocation, dependencies, done, retention)
    parked = park(invocation, done.malformed, dependencies)
    for line in metrics(done, left, dependencies):
        dependencies.emit(line)
    _note(done, dependencies)
    again = sorted({*done.failed, *(set(done.malformed) - parked)})
    if again and not invocation.partial:
        raise TransientError(f"{len(again)} of {len(invocation.messages)} messages must be delivered again")
    failures = [{"itemIdentifier": invocation.messages[at].id} for at in again]
    return {"batchItemFailures": failures}, done


def handler(
    dependencies: HydrateDependencies, report: Callable[[Hydrated], None] = lambda _done: None
) -> Callable[[Mapping[str, object], object], Answer]:
    """Return a Lambda function that calls `hydrate_batch` and then `report` with the results."""
    dependencies = dataclasses.replace(dependencies, retention=dependencies.stream_retention())

    def handle(event: Mapping[str, object], context: object) -> Answer:
        left_ms = getattr(context, "get_remaining_time_in_millis", None)
        current = dependencies
        if left_ms is not None:
            current = dataclasses.replace(dependencies, seconds_left=lambda: left_ms() / 1_000)
        answer, done = hydrate_batch(event, current)
        report(done)
        return answer

    return handle


def _results(
    dead_letters: Sequence[tuple[int, AnyDeadLetter]], dependencies: HydrateDependencies
) -> Iterator[Result]:
    """Yield the results lazily, so that at most a page of records is in memory."""
    yield from hydrate_records(
        [(at, one) for at, one in dead_letters if isinstance(one, DeadLetter)], dependencies
    )
    yield from hydrate_ranges([(at, one) for at, one in dead_letters if isinstance(one, Range)], dependencies)


def _dead_letters(
    invocation: Invocation, dependencies: HydrateDependencies, done: Hydrated
) -> list[tuple[int, AnyDeadLetter]]:
    """Read the dead letters of all messages; note malformed and currently unreadable messages in `done`."""
    found: list[tuple[int, AnyDeadLetter]] = []
    for at, message in enumerate(invocation.messages):
        try:
            shape = read(message.body)
            found += [
                (at, one) for one in (_fetch(shape, dependencies) if isinstance(shape, tuple) else [shape])
            ]
        except ValueError as error:
            done.malformed[at] = str(error)
        except Exception as error:
            done.unread[at] = why(error)
    return found


def _fetch(pointers: Sequence[Pointer], dependencies: HydrateDependencies) -> list[AnyDeadLetter]:
    """Read dead letters from S3 objects. Raises ValueError if an object is not a dead letter, and boto3 errors."""
    found: list[AnyDeadLetter] = []
    for pointer in pointers:
        body = get(dependencies.s3, pointer.bucket, pointer.key)
        if body is None:
            raise TransientError(f"s3://{pointer.bucket}/{pointer.key} does not exist")
        dead_letter = read(body)
        if isinstance(dead_letter, tuple):
            raise ValueError(f"s3://{pointer.bucket}/{pointer.key} is not a dead letter")
        found.append(dead_letter)
    return found


def _seconds_left(
    dead_letters: Sequence[tuple[int, AnyDeadLetter]], retention: Retention
) -> dict[str, float]:
    """Return by consumer the seconds until the first payload of its dead letters expires from the stream."""
    found: dict[str, float] = {}
    for _, dead_letter in dead_letters:
        left = retention.seconds_left(_stream(dead_letter), dead_letter.arrived)
        if left is not None:
            found[dead_letter.consumer] = min(left, found.get(dead_letter.consumer, left))
    return found


def _update_waiting(
    invocation: Invocation, dependencies: HydrateDependencies, done: Hydrated, retention: Retention
) -> None:
    """Store the metadata of waiting dead letters; delete it for those that are hydrated now."""
    for result in done.results:
        try:
            if result.state == State.WAITING:
                deadline = retention.deadline(_stream(result.dead_letter), result.dead_letter.arrived)
                put_waiting(dependencies.s3, dependencies.bucket, result.dead_letter, result.reason, deadline)
            elif invocation.messages[result.at].again:
                drop_waiting(dependencies.s3, dependencies.bucket, result.dead_letter)
        except Exception as error:
            # Only the list of waiting dead letters is affected: the message is delivered again or is hydrated.
            dependencies.note(
                "waiting dead letter not stored",
                level="warning",
                consumer=result.dead_letter.consumer,
                why=why(error),
            )


def _stream(dead_letter: AnyDeadLetter) -> str:
    return dead_letter.arn if isinstance(dead_letter, Range) else dead_letter.stream


def _note(done: Hydrated, dependencies: HydrateDependencies) -> None:
    for at, reason in sorted(done.failed.items()):
        dependencies.note("dead letter waits", level="warning", message=at, why=reason)
    counts = {state.value: done.count(state) for state in State}
    dependencies.note(
        "hydrated", written=len(done.written), kept=len(done.kept), malformed=len(done.malformed), **counts
    )
