"""Targets of a redrive: their configuration, the records that they take, and their answers."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol
from urllib.parse import urlsplit

import msgspec

from stream_app.errors import ConfigError, Problem
from stream_app.recovery.redrive.message import Lineage, Message
from stream_app.recovery.redrive.targets.auth import Auth

_TOKENS = uuid.UUID("6f1c1c63-3ad1-5d5e-9d57-0a4f7f2f4b11")
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
# A PutEvents entry, a PutRecords entry, or body and headers of a POST: only the target that made it reads it.
EncodedBody = Any


class Destination(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A target as stored in a plan: the name of a bus or stream, or a URL. `auth` names the source of its secret."""

    kind: Literal["bus", "stream", "http"]
    name: str
    auth: Auth | None = None


def destination(to: str, *, bus: str, stream: str, auth: Auth | None = None) -> Destination:
    """Parse `--to`: `bus`, `stream` or a URL. Raises ConfigError with every problem found."""
    if to in ("bus", "stream"):
        name = bus if to == "bus" else stream
        if not name:
            raise ConfigError([Problem("no bus is configured", "set app.bus in the properties file")])
        if auth is not None:
            hint = "leave --auth out: the AWS credentials of the environment are used"
            raise ConfigError([Problem(f"--auth does not apply to a {to}", hint)])
        return Destination("bus" if to == "bus" else "stream", name)
    problems = _url_problems(to, auth)
    if problems:
        raise ConfigError(problems)
    return Destination("http", to, auth)


def _url_problems(url: str, auth: Auth | None) -> list[Problem]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return [Problem(f"--to is not a valid URL: {error}", "give bus, stream, or https://host/path")]
    problems = []
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        problems.append(Problem("--to is neither bus, stream nor a URL", "write https://host/path"))
    if not url.isascii() or not url.isprintable() or " " in url:
        problems.append(
            Problem("--to contains characters that are not valid in a URL", "percent-encode them")
        )
    if parts.username is not None or parts.password is not None:
        hint = "a plan must not store secrets: use --auth HEADER=env:NAME"
        problems.append(Problem("--to contains a user name or a password", hint))
    if parts.scheme == "http" and auth is not None and parts.hostname not in _LOOPBACK:
        hint = "use https: plain http sends this header unencrypted"
        problems.append(Problem("--auth with plain http", hint))
    return problems


@dataclass(frozen=True, slots=True)
class Draft:
    """A record to send again: its original bytes and its decoded message (None if it cannot be decoded).

    If `repaired` is set, a repair has changed the message, and `data` no longer is what is sent.
    """

    data: bytes
    message: Message | None
    repaired: bool
    key: str
    lineage: Lineage

    @property
    def token(self) -> str:
        """The idempotency key, a function of record and attempt only."""
        return token(self.lineage)


def token(lineage: Lineage) -> str:
    """Return the idempotency key of an attempt, a UUID."""
    return str(uuid.uuid5(_TOKENS, f"{lineage.attempt}:{lineage.root}"))


class Unsupported(NamedTuple):
    """The record cannot be encoded for the target."""

    why: str


class EncodedRecord(NamedTuple):
    """A record encoded for a target.

    `deduplicated`: the receiver can recognize a second copy. `has_lineage`: the body contains the lineage.
    """

    key: str
    body: EncodedBody
    size: int
    deduplicated: bool
    has_lineage: bool


class Delivered(NamedTuple):
    """The target accepted the record; `receipt` holds what it returned (ids, position, status)."""

    receipt: Mapping[str, str] = {}


class Refused(NamedTuple):
    """The target will never accept this record."""

    why: str


class Retryable(NamedTuple):
    """The record was not accepted this time or, with `doubt`, it is unknown whether it was.

    `after` is the delay in seconds that the target requests before the next try.
    """

    why: str
    doubt: bool
    after: float | None = None


class SenderRejected(NamedTuple):
    """The target rejects all requests (credentials, permissions, address). The record was not accepted."""

    why: str


Answer = Delivered | Refused | Retryable | SenderRejected


class Target(Protocol):
    """A receiver of records. It tries each record once; pacing and retries are the caller's responsibility."""

    @property
    def where(self) -> str:
        """The target for display and for the ledger; never contains a secret."""
        ...

    @property
    def batch(self) -> int:
        """The preferred number of records for one call of `send`."""
        ...

    def encode(self, draft: Draft) -> EncodedRecord | Unsupported:
        """Encode a record for this target."""
        ...

    def send(self, records: Sequence[EncodedRecord]) -> Iterable[Answer]:
        """Try each record once and yield one answer for each, in order. Network errors are answers too."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...
