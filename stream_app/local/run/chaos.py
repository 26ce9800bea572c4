"""Crashes and reshards at chosen moments of a run, to verify that the audit still balances."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from stream_app.errors import ConfigError, Problem

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_kinesis.type_defs import ShardTypeDef


class Action(NamedTuple):
    """An action (kill, split or merge) to perform once `sent` records have been sent."""

    name: str
    sent: int


def parse(text: str) -> list[Action]:
    """Parse `kill@3000,split@5000,merge@7000` into actions ordered by record count. Raises ConfigError."""
    actions = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, sent = part.partition("@")
        if name not in _ACTIONS or not (sent.isascii() and sent.isdigit()):
            hint = f"use NAME@RECORDS, such as kill@3000, with NAME one of {', '.join(sorted(_ACTIONS))}"
            raise ConfigError([Problem(f"invalid action {part!r}", hint)])
        actions.append(Action(name, int(sent)))
    return sorted(actions, key=lambda action: action.sent)


def perform(action: Action, kinesis: KinesisClient, stream: str, daemon_pid: int | None) -> str:
    """Perform an action. Returns a description for the log."""
    return _ACTIONS[action.name](kinesis, stream, daemon_pid)


def _kill(_kinesis: KinesisClient, _stream: str, pid: int | None) -> str:
    if pid is None:
        return "no KCL daemon to kill"
    os.kill(pid, signal.SIGKILL)
    return f"killed the KCL daemon (pid {pid}) with SIGKILL"


def _split(kinesis: KinesisClient, stream: str, _pid: int | None) -> str:
    shard = _open_shards(kinesis, stream)[0]
    hashes = shard["HashKeyRange"]
    middle = (int(hashes["StartingHashKey"]) + int(hashes["EndingHashKey"])) // 2 + 1
    kinesis.split_shard(StreamName=stream, ShardToSplit=shard["ShardId"], NewStartingHashKey=str(middle))
    return f"split {shard['ShardId']}"


def _merge(kinesis: KinesisClient, stream: str, _pid: int | None) -> str:
    shards = sorted(_open_shards(kinesis, stream), key=lambda s: int(s["HashKeyRange"]["StartingHashKey"]))
    left, right = shards[-2]["ShardId"], shards[-1]["ShardId"]
    kinesis.merge_shards(StreamName=stream, ShardToMerge=left, AdjacentShardToMerge=right)
    return f"merged {left} and {right}"


def _open_shards(kinesis: KinesisClient, stream: str) -> Sequence[ShardTypeDef]:
    pages = kinesis.get_paginator("list_shards").paginate(StreamName=stream)
    shards = [shard for page in pages for shard in page["Shards"]]
    return [shard for shard in shards if "EndingSequenceNumber" not in shard["SequenceNumberRange"]]


_ACTIONS: dict[str, Callable[[KinesisClient, str, int | None], str]] = {
    "kill": _kill,
    "split": _split,
    "merge": _merge,
}
