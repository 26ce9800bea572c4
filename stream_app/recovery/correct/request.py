"""One request for a correction: made, refused to people, put off, or known already.

Every position is corrected at most once and comes before people at most once, so that nothing here can go round
for ever; and nothing here speaks to the bus, so that a correction never asks for another.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from stream_app.recovery.correct.history import Done, Entry, Refusal, Request
from stream_app.recovery.correct.recalculate import ImpossibleError

ONCE = "it was corrected once already"


class EarlyError(Exception):
    """Not yet: the request goes back to its queue for a while."""


class Verdict(StrEnum):
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
# Brings a refusal before people: by the manual queue, or by the manual store.
Tell = Callable[[Refusal], None]
# Stores a refusal for people before it is noted; its key.
Store = Callable[[Request, str], str]


def correct(request: Request, book: Book, work: Work, tell: Tell) -> Verdict:
    """Answer a request. Safe to repeat, after a crash at any point as well. Raises what the world raises."""
    entry = book.start(request)
    if entry.refusal is not None:
        return _told(entry.refusal, entry, request, book, tell)
    if entry.done is not None:
        return Verdict.REPEATED if entry.request.id == request.id else _refuse(request, ONCE, book, tell)
    if entry.request.id != request.id:
        return Verdict.EARLY  # whoever asked first is at it, or comes again
    try:
        done = work(request)
    except EarlyError:
        return Verdict.EARLY
    except ImpossibleError as error:
        return _refuse(request, str(error), book, tell)
    return Verdict.CORRECTED if book.finish(request, done) else Verdict.REPEATED


def finally_correct(request: Request, book: Book, work: Work, store: Store) -> Verdict:
    """The last try, for what no queue brings again: what is not corrected now is stored for people.

    What the world raises counts as a reason as well. Only the history and the store may still raise.
    """
    entry = book.start(request)
    if entry.refusal is not None and entry.notified:
        return Verdict.REPEATED
    if entry.done is not None:
        if entry.request.id == request.id and entry.refusal is None:
            return Verdict.REPEATED
        return _store(request, ONCE, book, store)
    try:
        done = work(request)
    except ImpossibleError as error:
        return _store(request, str(error), book, store)
    except EarlyError as error:
        return _store(request, f"it came too early to the last: {error}", book, store)
    except Exception as error:
        return _store(request, f"the last try failed: {type(error).__name__}", book, store)
    return Verdict.CORRECTED if book.finish(request, done) else Verdict.REPEATED


def again(request: Request, book: Book, work: Work) -> Done:
    """A person's own try at what was refused. Raises ImpossibleError, EarlyError, and what the world raises."""
    entry = book.start(request)
    if entry.done is not None:
        raise ImpossibleError(ONCE)
    done = work(request)
    if not book.finish(request, done):
        raise ImpossibleError(ONCE)
    return done


def _refuse(request: Request, reason: str, book: Book, tell: Tell) -> Verdict:
    if not book.refuse(request, reason):
        return Verdict.REPEATED
    tell(Refusal(request=request, reason=reason, at=0))
    book.notified(request)
    return Verdict.MANUAL


def _told(refusal: Refusal, entry: Entry, request: Request, book: Book, tell: Tell) -> Verdict:
    """A refusal that was noted just before a crash has not reached anybody yet."""
    if not entry.notified and refusal.request.id == request.id:
        tell(refusal)
        book.notified(request)
        return Verdict.MANUAL
    return Verdict.REPEATED


def _store(request: Request, reason: str, book: Book, store: Store) -> Verdict:
    key = store(request, reason)
    noted = book.refuse(request, reason, key)
    book.notified(request)
    return Verdict.MANUAL if noted else Verdict.REPEATED
