"""Crashes and reshards at chosen moments of a run, to see that the account still balances."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from stream_app.errors import ConfigError, Problem

Client = Callable[[str], Any]
_HALF = 2


class Act(NamedTuple):
    """What to do (kill, split, merge) once that many records are sent."""

    what: str
    sent: int


def parse(text: str) -> list[Act]:
    """`kill@3000,split@5000,merge@7000`: acts in order. Raises ConfigError."""
    acts = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        what, _, sent = part.partition("@")
        if what not in _ACTS or not (sent.isascii() and sent.isdigit()):
            hint = f"write NAME@RECORDS, with NAME of {', '.join(sorted(_ACTS))}, as in kill@3000"
            raise ConfigError([Problem(f"no such act: {part!r}", hint)])
        acts.append(Act(what, int(sent)))
    return sorted(acts, key=lambda act: act.sent)


def perform(act: Act, kinesis: Any, stream: str, daemon_pid: int | None) -> str:
    """Do it, and say what was done."""
    return _ACTS[act.what](kinesis, stream, daemon_pid)


def _kill(_kinesis: Any, _stream: str, pid: int | None) -> str:
    if pid is None:
        return "no daemon to kill"
    os.kill(pid, signal.SIGKILL)
    return f"killed the KCL daemon (pid {pid}) with SIGKILL"


def _split(kinesis: Any, stream: str, _pid: int | None) -> str:
    shard = _open_shards(kinesis, stream)[0]
    hashes = shard["HashKeyRange"]
    middle = (int(hashes["StartingHashKey"]) + int(hashes["EndingHashKey"])) // _HALF + 1
    kinesis.split_shard(StreamName=stream, ShardToSplit=shard["ShardId"], NewStartingHashKey=str(middle))
    return f"split {shard['ShardId']}"


def _merge(kinesis: Any, stream: str, _pid: int | None) -> str:
    shards = sorted(_open_shards(kinesis, stream), key=lambda s: int(s["HashKeyRange"]["StartingHashKey"]))
    left, right = shards[-2]["ShardId"], shards[-1]["ShardId"]
    kinesis.merge_shards(StreamName=stream, ShardToMerge=left, AdjacentShardToMerge=right)
    return f"merged {left} and {right}"


def _open_shards(kinesis: Any, stream: str) -> Sequence[dict[str, Any]]:
    pages = kinesis.get_paginator("list_shards").paginate(StreamName=stream)
    shards = [shard for page in pages for shard in page["Shards"]]
    return [shard for shard in shards if "EndingSequenceNumber" not in shard["SequenceNumberRange"]]


_ACTS: dict[str, Callable[[Any, str, int | None], str]] = {"kill": _kill, "split": _split, "merge": _merge}
