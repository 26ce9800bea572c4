"""Requests for corrections: made, refused to people, put off, or known already.

Every position is corrected at most once and comes before people at most once, so that nothing here can go round
for ever; and nothing here speaks to the bus, so that a correction never asks for another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from stream_app.model.record import Position
from stream_app.recovery.correct.calculation.recalculate import ImpossibleError
from stream_app.recovery.correct.history import Done, Entry, Refusal, Request

T = TypeVar("T")

ONCE = "it was corrected once already"


class EarlyError(Exception):
    """Not yet: the request goes back to its queue for a while."""


class BusyError(EarlyError):
    """Not yet, and not because of the request: the stream may not be read more often now."""


class RequestResult(StrEnum):
    """What became of a request."""

    CORRECTED = "corrected"
    MANUAL = "manual"
    REPEATED = "repeated"
    EARLY = "early"


class Book(Protocol):
    """The history; `history.History` keeps it."""

    def start(self, request: Request) -> Entry:
        """The position's entry, made by the first request."""
        ...

    def start_all(self, requests: Sequence[Request]) -> list[Entry | Exception]:
        """The same for requests of different positions; an error of one stands in its place."""
        ...

    def finish_all(self, made: Sequence[tuple[Entry, Done]]) -> list[bool | Exception]:
        """Note the corrections of entries, as `finish` does; an error of one stands in its place."""
        ...

    def finish(self, request: Request, done: Done) -> bool:
        """Note a correction, the first one only."""
        ...

    def refuse(self, request: Request, reason: str, stored: str | None = None) -> bool:
        """Note a refusal, the first one only."""
        ...

    def notified(self, request: Request) -> None:
        """Note that people were told."""
        ...


# Makes a correction; safe to repeat. Raises EarlyError, ImpossibleError, and what the world raises.
Work = Callable[[Request], Done]
# Makes corrections of different positions; safe to repeat. Gives for each what `Work` returns or raises.
WorkAll = Callable[[Sequence[Request]], Sequence[Done | Exception]]
# Brings a refusal before people: by the manual queue, or by the manual store.
Tell = Callable[[Refusal], None]
# Stores a refusal for people before it is noted; its key.
Store = Callable[[Request, str], str]


def correct(request: Request, book: Book, work: Work, tell: Tell) -> RequestResult:
    """Answer a request. Safe to repeat, after a crash at any point as well. Raises what the world raises."""
    (found,) = correct_all([request], book, one_by_one(work), tell)
    if isinstance(found, Exception):
        raise found
    return found


def one_by_one(work: Work) -> WorkAll:
    """The work on several requests, one after the other."""

    def tried(request: Request) -> Done | Exception:
        try:
            return work(request)
        except Exception as error:
            return error

    return lambda requests: [tried(request) for request in requests]


def correct_all(
    requests: Sequence[Request], book: Book, work: WorkAll, tell: Tell
) -> list[RequestResult | Exception]:
    """Answer requests of different positions; what the world raises for one stands in its place.

    Every one is noted as begun before the work, and every correction after it. Safe to repeat, after a crash at any
    point as well.
    """
    verdicts: dict[Position, RequestResult | Exception] = {}
    waiting = list[tuple[Request, Entry]]()
    for request, entry in zip(requests, book.start_all(requests), strict=True):
        if isinstance(entry, Exception):
            verdicts[request.position] = entry
            continue
        known = _tried(_known, entry, request, book, tell)
        if known is None:
            waiting.append((request, entry))
        else:
            verdicts[request.position] = known
    made = list[tuple[Entry, Done]]()
    given = work([request for request, _ in waiting]) if waiting else ()
    for (request, entry), done in zip(waiting, given, strict=True):
        if isinstance(done, Exception):
            verdicts[request.position] = _tried(_not_made, done, request, book, tell)
        else:
            made.append((entry, done))
    for (entry, _), noted in zip(made, book.finish_all(made) if made else (), strict=True):
        verdict = RequestResult.CORRECTED if noted is True else RequestResult.REPEATED
        verdicts[entry.request.position] = noted if isinstance(noted, Exception) else verdict
    return [verdicts[request.position] for request in requests]


def _tried(act: Callable[..., T], *arguments: Any) -> T | Exception:
    try:
        return act(*arguments)
    except Exception as error:
        return error


def _known(entry: Entry, request: Request, book: Book, tell: Tell) -> RequestResult | None:
    """What is decided of a request by its position's entry; None where the work is still to be done."""
    if entry.refusal is not None:
        return _told(entry.refusal, entry, request, book, tell)
    if entry.done is not None:
        return (
            RequestResult.REPEATED if entry.request.id == request.id else _refuse(request, ONCE, book, tell)
        )
    # Whoever asked first is at it, or comes again.
    return None if entry.request.id == request.id else RequestResult.EARLY


def _not_made(error: Exception, request: Request, book: Book, tell: Tell) -> RequestResult:
    """What becomes of a request whose work raised an error."""
    if isinstance(error, EarlyError):
        return RequestResult.EARLY
    if isinstance(error, ImpossibleError):
        return _refuse(request, str(error), book, tell)
    raise error


def finally_correct(request: Request, book: Book, work: Work, store: Store) -> RequestResult:
    """The last try, for what no queue brings again: what is not corrected now is stored for people.

    What the world raises counts as a reason as well. Only BusyError, the history and the store may still raise.
    """
    entry = book.start(request)
    if entry.refusal is not None and entry.notified:
        return RequestResult.REPEATED
    if entry.done is not None:
        if entry.request.id == request.id and entry.refusal is None:
            return RequestResult.REPEATED
        return _store(request, ONCE, book, store)
    try:
        done = work(request)
    except BusyError:
        raise
    except ImpossibleError as error:
        return _store(request, str(error), book, store)
    except EarlyError as error:
        return _store(request, f"it came too early to the last: {error}", book, store)
    except Exception as error:
        return _store(request, f"the last try failed: {type(error).__name__}", book, store)
    return RequestResult.CORRECTED if book.finish(request, done) else RequestResult.REPEATED


def again(request: Request, book: Book, work: Work) -> Done:
    """A person's own try at what was refused. Raises ImpossibleError, EarlyError, and what the world raises."""
    entry = book.start(request)
    if entry.done is not None:
        raise ImpossibleError(ONCE)
    done = work(request)
    if not book.finish(request, done):
        raise ImpossibleError(ONCE)
    return done


def _refuse(request: Request, reason: str, book: Book, tell: Tell) -> RequestResult:
    if not book.refuse(request, reason):
        return RequestResult.REPEATED
    tell(Refusal(request=request, reason=reason, at=0))
    book.notified(request)
    return RequestResult.MANUAL


def _told(refusal: Refusal, entry: Entry, request: Request, book: Book, tell: Tell) -> RequestResult:
    """A refusal that was noted just before a crash has not reached anybody yet."""
    if not entry.notified and refusal.request.id == request.id:
        tell(refusal)
        book.notified(request)
        return RequestResult.MANUAL
    return RequestResult.REPEATED


def _store(request: Request, reason: str, book: Book, store: Store) -> RequestResult:
    key = store(request, reason)
    noted = book.refuse(request, reason, key)
    book.notified(request)
    return RequestResult.MANUAL if noted else RequestResult.REPEATED
