"""Where failed records are sent again: what a target is given, and what it answers."""

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


class Destination(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A target as a plan names it: the bus or stream by its name, or a URL; `auth` tells where its secret is."""

    kind: Literal["bus", "stream", "http"]
    name: str
    auth: Auth | None = None


def destination(to: str, *, bus: str, stream: str, auth: Auth | None = None) -> Destination:
    """What `--to` means: `bus`, `stream` or a URL. Raises ConfigError, with every problem."""
    if to in ("bus", "stream"):
        name = bus if to == "bus" else stream
        if not name:
            raise ConfigError([Problem("there is no bus to send to", "set app.bus in the properties file")])
        if auth is not None:
            hint = "leave --auth out: the AWS credentials of the environment are used"
            raise ConfigError([Problem(f"a {to} takes no header", hint)])
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
        return [Problem(f"--to is no URL: {error}", "give bus, stream, or https://host/path")]
    problems = []
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        problems.append(Problem("--to is neither bus, stream nor a URL", "write https://host/path"))
    if not url.isascii() or not url.isprintable() or " " in url:
        problems.append(Problem("--to has characters that no URL has", "write them percent-encoded"))
    if parts.username is not None or parts.password is not None:
        hint = "a plan holds no secrets: use --auth HEADER=env:NAME"
        problems.append(Problem("--to holds a user or a password", hint))
    if parts.scheme == "http" and auth is not None and parts.hostname not in _LOOPBACK:
        hint = "use https: this header would cross the network in the clear"
        problems.append(Problem("--auth over plain http", hint))
    return problems


@dataclass(frozen=True, slots=True)
class Draft:
    """A record about to be sent again: its bytes as they came, and its message, None where nobody can read it.

    `mended` tells that a repair changed the message, so that the bytes are no longer what is to be sent.
    """

    data: bytes
    message: Message | None
    mended: bool
    key: str
    lineage: Lineage

    @property
    def token(self) -> str:
        """The idempotency key: the same for the same attempt at the same record, whoever makes it, and when."""
        return token(self.lineage)


def token(lineage: Lineage) -> str:
    """The idempotency key of an attempt, a UUID."""
    return str(uuid.uuid5(_TOKENS, f"{lineage.attempt}:{lineage.root}"))


class Unfit(NamedTuple):
    """The record has no form that the target takes."""

    why: str


class Parcel(NamedTuple):
    """A draft in its target's form.

    `collapses`: whether the receiver can tell a second copy. `carries`: whether its lineage is in it.
    """

    key: str
    body: Any
    size: int
    collapses: bool
    carries: bool


class Delivered(NamedTuple):
    """The target took it; `receipt` is what it said of it."""

    receipt: Mapping[str, str] = {}


class Refused(NamedTuple):
    """The target will never take this record."""

    why: str


class Later(NamedTuple):
    """Not taken this time, or (`doubt`) nobody knows whether it was. `after` is the wait, in s, that it asks for."""

    why: str
    doubt: bool
    after: float | None = None


class Barred(NamedTuple):
    """The target takes nothing from us: credentials, permissions, address. The record was not taken."""

    why: str


Answer = Delivered | Refused | Later | Barred


class Target(Protocol):
    """A place to send records to. One try, no retries: who calls paces, and tries again."""

    @property
    def where(self) -> str:
        """For people and for the ledger; never a secret."""
        ...

    @property
    def batch(self) -> int:
        """How many parcels it likes to be given at a time."""
        ...

    def parcel(self, draft: Draft) -> Parcel | Unfit:
        """The form in which it would be sent."""
        ...

    def send(self, parcels: Sequence[Parcel]) -> Iterable[Answer]:
        """Try each once; an answer for each, in order, as they come. The world's errors are answers too."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...
