"""An HTTP endpoint as a target: authenticated POSTs with an idempotency key; no redirects, no secret told."""

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
from stream_app.recovery.redrive.message import as_it_came
from stream_app.recovery.redrive.targets.target import (
    Answer,
    Barred,
    Delivered,
    Draft,
    Later,
    Parcel,
    Refused,
    Unfit,
)

IDEMPOTENCY_KEY = "Idempotency-Key"
FAILURE, ATTEMPT = "Stream-App-Failure", "Stream-App-Attempt"
# They are about who we are, not about the record.
_BARRING = frozenset({401, 403, 407})
_LONGEST_WAIT = 900.0  # seconds; a Retry-After beyond it is taken as this much
_READ = 65_536  # of an answer's body, so that the connection can be used again
_IDLE = 2.0  # seconds; a server may be closing a connection that rested longer, and its answer would be lost
_Headers = Mapping[str, str]


class HttpTarget:
    """Posts each record as the bytes that came, or repaired in the form in which it came.

    The record's lineage is in the headers: `Idempotency-Key` (the same for each try of an attempt),
    `Stream-App-Failure` and `Stream-App-Attempt`. `headers` holds the secrets. `timeout` (s) is that of the
    connection and of each read.
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
        """Without the query, which may hold a key."""
        return f"{self._parts.scheme}://{self._parts.netloc}{self._parts.path}"

    @property
    def batch(self) -> int:
        """One record for each thread."""
        return self._threads

    def parcel(self, draft: Draft) -> Parcel | Unfit:
        """The body and headers of a POST."""
        mended = draft.message is not None and draft.mended
        data = as_it_came(draft.message) if draft.message is not None and mended else draft.data
        is_json = mended or data[:1] in (b"{", b"[")
        headers = {
            "Content-Type": "application/json" if is_json else "application/octet-stream",
            IDEMPOTENCY_KEY: draft.token,
            FAILURE: quote(draft.lineage.root, safe="/%=:-._"),
            ATTEMPT: str(draft.lineage.attempt),
        }
        return Parcel(draft.key, (data, headers), len(data), collapses=True, carries=True)

    def send(self, parcels: Sequence[Parcel]) -> Iterator[Answer]:
        """Post each once, side by side."""
        return self._pool.map(self._send_one, parcels)

    def close(self) -> None:
        """Let go of the connections."""
        self._pool.shutdown()
        for connection in self._open:
            connection.close()

    def _send_one(self, parcel: Parcel) -> Answer:
        data, headers = parcel.body
        connection = self._connection()
        if (self._now() - self._local.used).total_seconds() > _IDLE:
            connection.close()
        try:
            if connection.sock is None:
                connection.connect()
        except ssl.SSLError as error:
            connection.close()
            return Barred(f"TLS: {error.reason or type(error).__name__}")
        except OSError as error:
            connection.close()
            return Later(f"no connection: {type(error).__name__}", doubt=False)
        return self._post(connection, data, {**self._headers, **headers})

    def _post(self, connection: http.client.HTTPConnection, data: bytes, headers: _Headers) -> Answer:
        try:
            connection.request("POST", self._path(), body=data, headers=dict(headers))
            response = connection.getresponse()
            rest = len(response.read(_READ)) == _READ
            self._local.used = self._now()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return Later(f"no answer: {type(error).__name__}", doubt=True)
        if rest:
            connection.close()
        return answer(response.status, response.getheader("Retry-After"), self._now())

    def _path(self) -> str:
        query = f"?{self._parts.query}" if self._parts.query else ""
        return (self._parts.path or "/") + query

    def _connection(self) -> http.client.HTTPConnection:
        """Return the connection of this thread; reconnect if it was closed."""
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
    """What an HTTP status means for the record that was posted.

    4xx is final, but for 429, and for 401, 403 and 407, which are about the sender. 5xx comes again; whether the
    record was taken is in doubt, except with 503. A redirect is not followed: it would carry the secret elsewhere.
    """
    why = f"HTTP {status}"
    if 200 <= status < 300:
        return Delivered({"status": str(status)})
    if status in _BARRING:
        return Barred(why)
    if status in (429, 503):
        return Later(why, doubt=False, after=seconds(retry_after, now))
    if status >= 500:
        return Later(why, doubt=True, after=seconds(retry_after, now))
    return Refused(why) if status >= 400 else Barred(f"{why}: redirects are not followed")


def seconds(retry_after: str | None, now: datetime) -> float | None:
    """The wait that a Retry-After header asks for, as seconds or as a date (RFC 9110, 10.2.3); None without one."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), _LONGEST_WAIT)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(0.0, (moment - now).total_seconds()), _LONGEST_WAIT)
