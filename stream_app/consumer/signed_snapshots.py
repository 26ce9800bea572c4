"""Snapshots with a signature, so that nobody who can only write to the bucket can change a shard's state.

A signed snapshot is MAGIC, the key's id (8 bytes), an HMAC-SHA-256 (32 bytes) and the snapshot. The HMAC covers the
snapshot and the application, shard and checkpoint that it belongs to, so it fits no other. Of several keys the first
signs, and all are accepted: to exchange a key, put the new one first, and take the old one away when every shard has
made a checkpoint.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path

from stream_app.consumer.snapshots import Snapshots
from stream_app.errors import ConfigError, FatalError, Problem

MAGIC = b"stream-app signed state 1\n"
LEAST_KEY = 32
_ID, _TAG = 8, 32


def read_keys(text: str, file: str) -> list[bytes]:
    """Return the keys out of a text, or of a file where the text is empty: words, at least LEAST_KEY characters each.

    Raises ConfigError, which never shows a key.
    """
    source = "STREAM_APP_STATE_KEY"
    if not text and file:
        source = f"app.state_key_file {file}"
        try:
            text = Path(file).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError([Problem(f"{source} cannot be read: {type(error).__name__}", _HINT)]) from None
        if not text.split():
            raise ConfigError([Problem(f"{source} is empty", _HINT)])
    keys = [word.encode() for word in text.split()]
    if any(len(key) < LEAST_KEY for key in keys):
        raise ConfigError([Problem(f"{source} holds a key of fewer than {LEAST_KEY} characters", _HINT)])
    return keys


_HINT = (
    "make a key with `openssl rand -hex 32`; several are separated by blanks or lines, the first one signs"
)


class SignedSnapshots:
    """Signs what is saved, where there is a key, and refuses what is loaded with a wrong signature or without one.

    `accept_unsigned` takes snapshots without a signature too: for the time until every shard has made a checkpoint
    with a key, and without a key for snapshots whose signature cannot be checked any more.
    """

    def __init__(
        self, inner: Snapshots, keys: Sequence[bytes], application: str, *, accept_unsigned: bool
    ) -> None:
        self._inner, self._application, self._accept_unsigned = inner, application, accept_unsigned
        self._keys = {_id(key): key for key in keys}
        self._first = keys[0] if keys else None

    def load(self, shard: str, name: str) -> bytes | None:
        """The snapshot of that name, None where there is none. Raises FatalError when it is refused."""
        data = self._inner.load(shard, name)
        if data is None:
            return None
        if not data.startswith(MAGIC):
            if self._keys and not self._accept_unsigned:
                raise FatalError(
                    "the state snapshot has no signature; where a key is new, set app.unsigned_state = accept "
                    "until every shard has made a checkpoint"
                )
            return data
        begin = len(MAGIC) + _ID + _TAG
        id_, tag = data[len(MAGIC) : len(MAGIC) + _ID], data[begin - _TAG : begin]
        if not self._keys:
            if not self._accept_unsigned:
                raise FatalError(
                    "the state snapshot is signed; set STREAM_APP_STATE_KEY or app.state_key_file"
                )
            return data[begin:]
        key = self._keys.get(id_)
        if key is None:
            raise FatalError("the state snapshot is signed with a key that is not among those given")
        if not hmac.compare_digest(tag, self._tag(key, shard, name, memoryview(data)[begin:])):
            raise FatalError(
                "the signature of the state snapshot is wrong: it was changed, or belongs elsewhere"
            )
        return data[begin:]

    def save(self, shard: str, name: str, snapshot: bytes) -> None:
        """Keep it, signed with the first key; safe to repeat."""
        if self._first is not None:
            tag = self._tag(self._first, shard, name, memoryview(snapshot))
            snapshot = b"".join((MAGIC, _id(self._first), tag, snapshot))
        self._inner.save(shard, name, snapshot)

    def forget(self, shard: str, name: str) -> None:
        """Drop one that no checkpoint can ask for any more."""
        self._inner.forget(shard, name)

    def _tag(self, key: bytes, shard: str, name: str, snapshot: memoryview) -> bytes:
        made = hmac.new(key, MAGIC, hashlib.sha256)
        for part in (self._application, shard, name):
            made.update(len(part.encode()).to_bytes(4, "little") + part.encode())
        made.update(snapshot)
        return made.digest()


def _id(key: bytes) -> bytes:
    """What a key is known by; it tells nothing of the key."""
    return hmac.digest(key, b"stream-app state key id", "sha256")[:_ID]
