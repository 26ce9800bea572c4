"""Hydrate: dead letters of every shape in, full payloads on S3 out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from stream_app.aws.objects import get
from stream_app.errors import TransientError
from stream_app.recovery.dead_letters import DeadLetter
from stream_app.recovery.hydrate.dependencies import Hydrated, HydrateDependencies, Result, why
from stream_app.recovery.hydrate.events import Invocation, messages
from stream_app.recovery.hydrate.ranges import hydrate_ranges
from stream_app.recovery.hydrate.records import hydrate_records
from stream_app.recovery.hydrate.report import metrics, park
from stream_app.recovery.hydrate.results import State, drop_waiting, put_waiting
from stream_app.recovery.hydrate.shapes import Letter, Pointer, Range, read
from stream_app.recovery.stream.retention import Retention

__all__ = ["HydrateDependencies", "Hydrated", "Result", "handler", "hydrate", "hydrate_batch"]

Answer = dict[str, list[dict[str, str]]]


def hydrate(letters: Sequence[Letter], dependencies: HydrateDependencies) -> Hydrated:
    """What becomes of each dead letter, in any order; `at` counts them as given. Safe to repeat.

    Never raises: whatever goes wrong with a letter makes that letter wait.
    """
    return Hydrated(list(_results(list(enumerate(letters)), dependencies)))


def hydrate_batch(event: Mapping[str, Any], dependencies: HydrateDependencies) -> tuple[Answer, Hydrated]:
    """Hydrate what one Lambda event brings. The answer names the messages that must come again, and only those.

    A letter that could not be hydrated waits: its metadata is kept with the time when its payload vanishes. What is
    no dead letter goes to the parking queue, or, without one, stays with the queue's redrive policy. Raises
    TransientError when messages failed that only the whole event can bring again (SNS, S3), ValueError when the
    event is of no source that hydrate knows.
    """
    invocation = messages(event)
    done, clock = Hydrated(), dependencies.clock()
    letters = _letters(invocation, dependencies, done)
    # Asked before any is hydrated: this is how long the most urgent of them had left.
    left = _left(letters, clock)
    done.results += _results(letters, dependencies)
    _note_waiting(invocation, dependencies, done, clock)
    parked = park(invocation, done.malformed, dependencies)
    for line in metrics(done, left, dependencies):
        dependencies.emit(line)
    _note(done, dependencies)
    again = sorted({*done.failed, *(set(done.malformed) - parked)})
    if again and not invocation.partial:
        raise TransientError(f"{len(again)} of {len(invocation.messages)} messages must come again")
    answer = [{"itemIdentifier": invocation.messages[at].id} for at in again]
    return {"batchItemFailures": answer}, done


def handler(
    dependencies: HydrateDependencies, report: Callable[[Hydrated], None] = lambda _done: None
) -> Callable[[Mapping[str, Any], Any], Answer]:
    """The Lambda function: `handler(event, context)`, by `hydrate_batch`. `report` is told what became of it all."""
    dependencies = dataclasses.replace(dependencies, retention=dependencies.clock())

    def handle(event: Mapping[str, Any], context: Any) -> Answer:
        left_ms = getattr(context, "get_remaining_time_in_millis", None)
        here = (
            dependencies
            if left_ms is None
            else dataclasses.replace(dependencies, seconds_left=lambda: left_ms() / 1_000)
        )
        answer, done = hydrate_batch(event, here)
        report(done)
        return answer

    return handle


def _results(letters: Sequence[tuple[int, Letter]], dependencies: HydrateDependencies) -> Iterator[Result]:
    """Lazy, so that no more than a page of records is held."""
    yield from hydrate_records(
        [(at, one) for at, one in letters if isinstance(one, DeadLetter)], dependencies
    )
    yield from hydrate_ranges([(at, one) for at, one in letters if isinstance(one, Range)], dependencies)


def _letters(
    invocation: Invocation, dependencies: HydrateDependencies, done: Hydrated
) -> list[tuple[int, Letter]]:
    """The letters of all messages; what holds none, or cannot be fetched from S3 now, is told in `done`."""
    found: list[tuple[int, Letter]] = []
    for at, message in enumerate(invocation.messages):
        try:
            shape = read(message.body)
            found += [
                (at, one) for one in (_fetched(shape, dependencies) if isinstance(shape, tuple) else [shape])
            ]
        except ValueError as error:
            done.malformed[at] = str(error)
        except Exception as error:
            done.unread[at] = why(error)
    return found


def _fetched(pointers: Sequence[Pointer], dependencies: HydrateDependencies) -> list[Letter]:
    """The letters in objects on S3. Raises ValueError for an object that holds none, and what boto3 raises."""
    found: list[Letter] = []
    for pointer in pointers:
        body = get(dependencies.s3, pointer.bucket, pointer.key)
        if body is None:
            raise TransientError(f"there is no s3://{pointer.bucket}/{pointer.key}")
        letter = read(body)
        if isinstance(letter, tuple):
            raise ValueError(f"s3://{pointer.bucket}/{pointer.key} holds no dead letter")
        found.append(letter)
    return found


def _left(letters: Sequence[tuple[int, Letter]], clock: Retention) -> dict[str, float]:
    """By consumer, the seconds after which the first payload of these letters leaves its stream."""
    found: dict[str, float] = {}
    for _, letter in letters:
        left = clock.seconds_left(_stream(letter), letter.arrived)
        if left is not None:
            found[letter.consumer] = min(left, found.get(letter.consumer, left))
    return found


def _note_waiting(
    invocation: Invocation, dependencies: HydrateDependencies, done: Hydrated, clock: Retention
) -> None:
    """Keep what is known of the letters that wait; forget those that waited, and are hydrated now."""
    for result in done.results:
        try:
            if result.state == State.WAITING:
                vanishes = clock.vanishes(_stream(result.letter), result.letter.arrived)
                put_waiting(dependencies.s3, dependencies.bucket, result.letter, result.reason, vanishes)
            elif invocation.messages[result.at].again:
                drop_waiting(dependencies.s3, dependencies.bucket, result.letter)
        except Exception as error:
            # The message itself comes again, or the letter is hydrated: nothing is lost but this view of it.
            dependencies.note(
                "waiting letter not noted", level="warning", consumer=result.letter.consumer, why=why(error)
            )


def _stream(letter: Letter) -> str:
    return letter.arn if isinstance(letter, Range) else letter.stream


def _note(done: Hydrated, dependencies: HydrateDependencies) -> None:
    for at, reason in sorted(done.failed.items()):
        dependencies.note("dead letter waits", level="warning", message=at, why=reason)
    counts = {state.value: done.count(state) for state in State}
    dependencies.note(
        "hydrated", written=len(done.written), kept=len(done.kept), malformed=len(done.malformed), **counts
    )
