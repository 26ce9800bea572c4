"""Signed snapshots: write access to the bucket alone does not suffice to change a shard's state.

A signed snapshot consists of MAGIC, the key's id (8 bytes), an HMAC-SHA-256 (32 bytes) and the snapshot. The HMAC
covers the snapshot with its application, shard and checkpoint, so it is not valid for any other. The first of several
keys signs, and all are accepted. To rotate a key, put the new one first, and remove the old one when every shard has
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
    """Parse keys of at least LEAST_KEY characters, separated by whitespace, from a text or else from a file.

    Raises ConfigError, which never contains a key.
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


_HINT = "create a key with `openssl rand -hex 32`; separate several by whitespace, the first one signs"


class SignedSnapshots:
    """Signs snapshots if there is a key, and rejects loaded ones whose signature is wrong or missing.

    With `accept_unsigned`, snapshots without a signature are accepted too, until every shard has made a checkpoint
    with the key; without a key, signed snapshots are then loaded without a check.
    """

    def __init__(
        self, inner: Snapshots, keys: Sequence[bytes], application: str, *, accept_unsigned: bool
    ) -> None:
        self._inner, self._application, self._accept_unsigned = inner, application, accept_unsigned
        self._keys = {_id(key): key for key in keys}
        self._first = keys[0] if keys else None

    def load(self, shard: str, name: str) -> bytes | None:
        """Return the snapshot of that name, None if there is none. Raises FatalError if it is rejected."""
        data = self._inner.load(shard, name)
        if data is None:
            return None
        if not data.startswith(MAGIC):
            if self._keys and not self._accept_unsigned:
                raise FatalError(
                    "the state snapshot has no signature; after adding a first key, set app.unsigned_state = accept "
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
            raise FatalError("the state snapshot is signed with an unknown key")
        if not hmac.compare_digest(tag, self._tag(key, shard, name, memoryview(data)[begin:])):
            raise FatalError(
                "the signature of the state snapshot is wrong: it was changed or belongs to another checkpoint"
            )
        return data[begin:]

    def save(self, shard: str, name: str, snapshot: bytes) -> None:
        """Store the snapshot, signed with the first key; idempotent."""
        if self._first is not None:
            tag = self._tag(self._first, shard, name, memoryview(snapshot))
            snapshot = b"".join((MAGIC, _id(self._first), tag, snapshot))
        self._inner.save(shard, name, snapshot)

    def forget(self, shard: str, name: str) -> None:
        """Delete a snapshot that no checkpoint needs."""
        self._inner.forget(shard, name)

    def _tag(self, key: bytes, shard: str, name: str, snapshot: memoryview) -> bytes:
        tag = hmac.new(key, MAGIC, hashlib.sha256)
        for part in (self._application, shard, name):
            tag.update(len(part.encode()).to_bytes(4, "little") + part.encode())
        tag.update(snapshot)
        return tag.digest()


def _id(key: bytes) -> bytes:
    """Return the id of a key, which does not reveal the key."""
    return hmac.digest(key, b"stream-app state key id", "sha256")[:_ID]
