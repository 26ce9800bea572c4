"""Decides what happens to a request for a correction.

A request is corrected, refused for manual handling, returned to its queue, or recognized as a repetition. Every
position is corrected at most once and refused at most once, so no request circulates forever. Nothing here
publishes to the event bus, so a correction never requests another one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import ParamSpec, Protocol, TypeVar

from stream_app.model.record import Position
from stream_app.recovery.correct.calculation.recalculate import UncorrectableError
from stream_app.recovery.correct.history_entry import Correction, Entry, Refusal, Request

P = ParamSpec("P")
T = TypeVar("T")

ALREADY_CORRECTED = "the record was already corrected once"


class NotReadyError(Exception):
    """The record cannot be corrected yet: the request returns to its queue for a while."""


class ReadThrottledError(NotReadyError):
    """The stream may not be read now because of the rate limit; the request itself is valid."""


class RequestResult(StrEnum):
    """The outcome of a request."""

    CORRECTED = "corrected"
    MANUAL = "manual"
    REPEATED = "repeated"
    EARLY = "early"


class HistoryStore(Protocol):
    """The correction history; implemented by `history.History`."""

    def start(self, request: Request) -> Entry:
        """Return the position's entry; the first request creates it."""
        ...

    def start_all(self, requests: Sequence[Request]) -> list[Entry | Exception]:
        """Return the entries of different positions; a failed one has its exception instead."""
        ...

    def finish_all(self, corrected: Sequence[tuple[Entry, Correction]]) -> list[bool | Exception]:
        """Record several corrections, as `finish` does; a failed one has its exception instead."""
        ...

    def finish(self, request: Request, done: Correction) -> bool:
        """Record a correction; return False if the position has one already."""
        ...

    def refuse(self, request: Request, reason: str, stored: str | None = None) -> bool:
        """Record a refusal; return False if the position has one already."""
        ...

    def notified(self, request: Request) -> None:
        """Record that the refusal was sent to the manual queue or store."""
        ...


# Makes a correction. Idempotent. Raises NotReadyError, UncorrectableError, and what boto3 raises.
MakeCorrection = Callable[[Request], Correction]
# Makes corrections of different positions. Idempotent. Returns for each what `MakeCorrection` returns or raises.
MakeCorrections = Callable[[Sequence[Request]], Sequence[Correction | Exception]]
# Sends a refusal to the manual queue.
Notify = Callable[[Refusal], None]
# Stores a refused request in the manual store, before the refusal is recorded; returns its key.
StoreRefusal = Callable[[Request, str], str]


def correct(request: Request, history: HistoryStore, make: MakeCorrection, notify: Notify) -> RequestResult:
    """Process a request. Idempotent, also after a crash at any point. Raises what boto3 raises."""
    (found,) = correct_all([request], history, one_by_one(make), notify)
    if isinstance(found, Exception):
        raise found
    return found


def one_by_one(make: MakeCorrection) -> MakeCorrections:
    """Return a function that makes several corrections, one after the other."""

    def tried(request: Request) -> Correction | Exception:
        try:
            return make(request)
        except Exception as error:
            return error

    return lambda requests: [tried(request) for request in requests]


def correct_all(
    requests: Sequence[Request], history: HistoryStore, make: MakeCorrections, notify: Notify
) -> list[RequestResult | Exception]:
    """Process requests for different positions.

    Returns for each a result, or the exception that it raised. Every request is recorded as started before its
    correction is made, and every correction after it. Idempotent, also after a crash at any point.
    """
    results: dict[Position, RequestResult | Exception] = {}
    waiting = list[tuple[Request, Entry]]()
    for request, entry in zip(requests, history.start_all(requests), strict=True):
        if isinstance(entry, Exception):
            results[request.position] = entry
            continue
        known = _tried(_decided, entry, request, history, notify)
        if known is None:
            waiting.append((request, entry))
        else:
            results[request.position] = known
    corrected = list[tuple[Entry, Correction]]()
    outcomes = make([request for request, _ in waiting]) if waiting else ()
    for (request, entry), done in zip(waiting, outcomes, strict=True):
        if isinstance(done, Exception):
            results[request.position] = _tried(_failed, done, request, history, notify)
        else:
            corrected.append((entry, done))
    for (entry, _), recorded in zip(
        corrected, history.finish_all(corrected) if corrected else (), strict=True
    ):
        result = RequestResult.CORRECTED if recorded is True else RequestResult.REPEATED
        results[entry.request.position] = recorded if isinstance(recorded, Exception) else result
    return [results[request.position] for request in requests]


def _tried(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | Exception:
    try:
        return function(*args, **kwargs)
    except Exception as error:
        return error


def _decided(entry: Entry, request: Request, history: HistoryStore, notify: Notify) -> RequestResult | None:
    """Return the result of a request that its position's entry already decides, else None."""
    if entry.refusal is not None:
        return _repeat_refusal(entry.refusal, entry, request, history, notify)
    if entry.done is not None:
        return (
            RequestResult.REPEATED
            if entry.request.id == request.id
            else _refuse(request, ALREADY_CORRECTED, history, notify)
        )
    # The first request for the position is still being processed, or will be received again.
    return None if entry.request.id == request.id else RequestResult.EARLY


def _failed(error: Exception, request: Request, history: HistoryStore, notify: Notify) -> RequestResult:
    """Return the result of a request whose correction raised an error; re-raise an unexpected one."""
    if isinstance(error, NotReadyError):
        return RequestResult.EARLY
    if isinstance(error, UncorrectableError):
        return _refuse(request, str(error), history, notify)
    raise error


def final_attempt(
    request: Request, history: HistoryStore, make: MakeCorrection, store: StoreRefusal
) -> RequestResult:
    """Make the last attempt at a request from the dead-letter queue.

    If it fails, the request is stored for manual handling. Any error of the correction counts as a reason, except
    ReadThrottledError, which is raised. Errors of the history and of the store are raised as well.
    """
    entry = history.start(request)
    if entry.refusal is not None and entry.notified:
        return RequestResult.REPEATED
    if entry.done is not None:
        if entry.request.id == request.id and entry.refusal is None:
            return RequestResult.REPEATED
        return _store(request, ALREADY_CORRECTED, history, store)
    try:
        done = make(request)
    except ReadThrottledError:
        raise
    except UncorrectableError as error:
        return _store(request, str(error), history, store)
    except NotReadyError as error:
        return _store(request, f"it could not be corrected before the last attempt: {error}", history, store)
    except Exception as error:
        return _store(request, f"the last attempt failed: {type(error).__name__}", history, store)
    return RequestResult.CORRECTED if history.finish(request, done) else RequestResult.REPEATED


def correct_refused(request: Request, history: HistoryStore, make: MakeCorrection) -> Correction:
    """Correct a refused record at an operator's request.

    Raises UncorrectableError, NotReadyError, and what boto3 raises.
    """
    entry = history.start(request)
    if entry.done is not None:
        raise UncorrectableError(ALREADY_CORRECTED)
    done = make(request)
    if not history.finish(request, done):
        raise UncorrectableError(ALREADY_CORRECTED)
    return done


def _refuse(request: Request, reason: str, history: HistoryStore, notify: Notify) -> RequestResult:
    if not history.refuse(request, reason):
        return RequestResult.REPEATED
    notify(Refusal(request=request, reason=reason, at=0))
    history.notified(request)
    return RequestResult.MANUAL


def _repeat_refusal(
    refusal: Refusal, entry: Entry, request: Request, history: HistoryStore, notify: Notify
) -> RequestResult:
    """Send a recorded refusal whose notification a crash may have prevented."""
    if not entry.notified and refusal.request.id == request.id:
        notify(refusal)
        history.notified(request)
        return RequestResult.MANUAL
    return RequestResult.REPEATED


def _store(request: Request, reason: str, history: HistoryStore, store: StoreRefusal) -> RequestResult:
    key = store(request, reason)
    recorded = history.refuse(request, reason, key)
    history.notified(request)
    return RequestResult.MANUAL if recorded else RequestResult.REPEATED
