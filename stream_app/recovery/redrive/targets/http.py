"""HTTP endpoint as a target: authenticated POST requests with an idempotency key; redirects are not followed."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote, urlsplit

from stream_app import __version__
from stream_app.recovery.redrive.message import original_form
from stream_app.recovery.redrive.targets.target import (
    Answer,
    Delivered,
    Draft,
    EncodedRecord,
    Refused,
    Retryable,
    SenderRejected,
    Unsupported,
)

IDEMPOTENCY_KEY = "Idempotency-Key"
FAILURE, ATTEMPT = "Stream-App-Failure", "Stream-App-Attempt"
# These statuses concern the sender, not the record.
_SENDER_STATUSES = frozenset({401, 403, 407})
_MAX_DELAY = 900.0  # seconds; a larger Retry-After is reduced to this value
_READ = 65_536  # bytes read of a response body, so that the connection can be reused
# Seconds. The server may close a connection that was idle for longer, and the response would be lost.
_IDLE = 2.0
_Headers = Mapping[str, str]


class HttpTarget:
    """Posts each record: its original bytes or, after a repair, the message in its original format.

    The lineage is in the headers `Idempotency-Key` (the same for every try of an attempt), `Stream-App-Failure`
    and `Stream-App-Attempt`. `headers` contains the secrets. `timeout`, in seconds, applies to the connection and to
    each read.
    """

    def __init__(
        self,
        url: str,
        headers: _Headers | None = None,
        *,
        timeout: float = 10.0,
        threads: int = 4,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._parts = urlsplit(url)
        self._headers = {"User-Agent": f"stream-app/{__version__}", **(headers or {})}
        self._timeout, self._threads, self._now = timeout, threads, now
        self._context = ssl.create_default_context() if self._parts.scheme == "https" else None
        self._pool = ThreadPoolExecutor(threads, "http")
        self._local = threading.local()
        self._open: list[http.client.HTTPConnection] = []

    @property
    def where(self) -> str:
        """The URL without its query, which may contain an API key."""
        return f"{self._parts.scheme}://{self._parts.netloc}{self._parts.path}"

    @property
    def batch(self) -> int:
        """One record per thread."""
        return self._threads

    def encode(self, draft: Draft) -> EncodedRecord | Unsupported:
        """Build the body and headers of a POST request."""
        repaired = draft.message is not None and draft.repaired
        data = original_form(draft.message) if draft.message is not None and repaired else draft.data
        is_json = repaired or data[:1] in (b"{", b"[")
        headers = {
            "Content-Type": "application/json" if is_json else "application/octet-stream",
            IDEMPOTENCY_KEY: draft.token,
            FAILURE: quote(draft.lineage.root, safe="/%=:-._"),
            ATTEMPT: str(draft.lineage.attempt),
        }
        return EncodedRecord(draft.key, (data, headers), len(data), deduplicated=True, has_lineage=True)

    def send(self, records: Sequence[EncodedRecord]) -> Iterator[Answer]:
        """Post each record once, in parallel."""
        return self._pool.map(self._send_one, records)

    def close(self) -> None:
        """Close the connections."""
        self._pool.shutdown()
        for connection in self._open:
            connection.close()

    def _send_one(self, record: EncodedRecord) -> Answer:
        data, headers = record.body
        connection = self._connection()
        if (self._now() - self._local.used).total_seconds() > _IDLE:
            connection.close()
        try:
            if connection.sock is None:
                connection.connect()
        except ssl.SSLError as error:
            connection.close()
            return SenderRejected(f"TLS: {error.reason or type(error).__name__}")
        except OSError as error:
            connection.close()
            return Retryable(f"no connection: {type(error).__name__}", doubt=False)
        return self._post(connection, data, {**self._headers, **headers})

    def _post(self, connection: http.client.HTTPConnection, data: bytes, headers: _Headers) -> Answer:
        try:
            connection.request("POST", self._path(), body=data, headers=dict(headers))
            response = connection.getresponse()
            unread = len(response.read(_READ)) == _READ
            self._local.used = self._now()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return Retryable(f"no answer: {type(error).__name__}", doubt=True)
        if unread:
            connection.close()
        return answer(response.status, response.getheader("Retry-After"), self._now())

    def _path(self) -> str:
        query = f"?{self._parts.query}" if self._parts.query else ""
        return (self._parts.path or "/") + query

    def _connection(self) -> http.client.HTTPConnection:
        """Return this thread's connection, which reconnects if it was closed."""
        found: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if found is None:
            host, port = self._parts.hostname or "", self._parts.port
            if self._context is not None:
                found = http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._context)
            else:
                found = http.client.HTTPConnection(host, port, timeout=self._timeout)
            self._local.connection, self._local.used = found, self._now()
            self._open.append(found)
        return found


def answer(status: int, retry_after: str | None, now: datetime) -> Answer:
    """Map an HTTP status to an answer for the posted record.

    A 4xx status is final, except 429 (retried) and 401, 403 and 407 (they concern the sender). A 5xx status is
    retried, and except for 503 it is in doubt whether the record was accepted. A redirect is not followed, because it
    would send the secret to another host.
    """
    why = f"HTTP {status}"
    if 200 <= status < 300:
        return Delivered({"status": str(status)})
    if status in _SENDER_STATUSES:
        return SenderRejected(why)
    if status in (429, 503):
        return Retryable(why, doubt=False, after=seconds(retry_after, now))
    if status >= 500:
        return Retryable(why, doubt=True, after=seconds(retry_after, now))
    return Refused(why) if status >= 400 else SenderRejected(f"{why}: redirects are not followed")


def seconds(retry_after: str | None, now: datetime) -> float | None:
    """Parse a Retry-After header, seconds or a date (RFC 9110, 10.2.3), into seconds; None without one."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), _MAX_DELAY)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(0.0, (moment - now).total_seconds()), _MAX_DELAY)
