"""Plays KCL's side of the MultiLang protocol, to test a consumer."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, Self

import msgspec

from stream_app.model.record import Record

_Message = dict[str, Any]
"""A message of the protocol as a JSON object."""


class ConsumerEndedError(AssertionError):
    """The consumer closed its pipe instead of responding, as in a crash."""


class Player:
    """Sends KCL's actions, responds to checkpoints, and records both.

    `checkpoints` has (sequence, sub) of each successful checkpoint, (None, None) for the end of a shard. `refused`
    has the sequence number and error of each one that failed by `fail_checkpoints`. `stray` has lines that are not
    messages; the player ignores them as KCL does.
    """

    def __init__(self, to_child: IO[bytes], from_child: IO[bytes]) -> None:
        self._out, self._in = to_child, from_child
        self._errors: deque[str | None] = deque()
        self.checkpoints: list[tuple[str | None, int | None]] = []
        self.refused: list[tuple[str | None, str]] = []
        self.stray: list[bytes] = []

    def fail_checkpoints(self, *errors: str | None) -> None:
        """Set KCL's exception for each of the next checkpoints; None lets one succeed."""
        self._errors.extend(errors)

    def initialize(self, shard: str, sequence: str = "TRIM_HORIZON", sub: int = 0) -> None:
        """Send the shard and its checkpoint."""
        self._act(
            {"action": "initialize", "shardId": shard, "sequenceNumber": sequence, "subSequenceNumber": sub}
        )

    def records(self, records: Sequence[Record], behind_ms: int = 0) -> None:
        """Send records."""
        lines = [
            {
                "action": "record",
                "data": base64.b64encode(item.data).decode(),
                "partitionKey": item.partition_key,
                "approximateArrivalTimestamp": item.approximate_arrival_timestamp,
                "sequenceNumber": item.sequence_number,
                "subSequenceNumber": item.sub_sequence_number,
            }
            for item in records
        ]
        self._act({"action": "processRecords", "records": lines, "millisBehindLatest": behind_ms})

    def tick(self, behind_ms: int = 0) -> None:
        """Send an empty batch, as KCL does about five times a second."""
        self.records([], behind_ms)

    def lease_lost(self) -> None:
        """Send that another worker has the lease."""
        self._act({"action": "leaseLost"})

    def shard_ended(self) -> None:
        """Send that the shard was read to its end."""
        self._act({"action": "shardEnded"})

    def shutdown_requested(self) -> None:
        """Send that the daemon is about to stop."""
        self._act({"action": "shutdownRequested"})

    def close(self) -> None:
        """Close both pipes, as a daemon that ends."""
        for pipe in (self._out, self._in):
            with suppress(BrokenPipeError):  # buffered output is discarded
                pipe.close()

    def _act(self, message: _Message) -> None:
        self._send(message)
        while True:
            answer = self._receive()
            if answer["action"] == "checkpoint":
                self._answer_checkpoint(answer)
            elif answer == {"action": "status", "responseFor": message["action"]}:
                return
            else:
                raise AssertionError(f"unexpected answer to {message['action']}: {answer}")

    def _answer_checkpoint(self, asked: _Message) -> None:
        sequence, sub = asked["sequenceNumber"], asked["subSequenceNumber"]
        error = self._errors.popleft() if self._errors else None
        if error is None:
            self.checkpoints.append((sequence, sub))
        else:
            self.refused.append((sequence, error))
        self._send(
            {"action": "checkpoint", "sequenceNumber": sequence, "subSequenceNumber": sub, "error": error}
        )

    def _send(self, message: _Message) -> None:
        try:
            self._out.write(msgspec.json.encode(message) + b"\n")
            self._out.flush()
        except BrokenPipeError as error:
            raise ConsumerEndedError("the consumer has ended") from error

    def _receive(self) -> _Message:
        while line := self._in.readline():
            message = _message(line)
            if message is not None:
                return message
            if line.strip():
                self.stray.append(line)
        raise ConsumerEndedError("the consumer ended without an answer")


def _message(line: bytes) -> _Message | None:
    try:
        message = msgspec.json.decode(line, type=_Message)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return message if "action" in message else None


class Played:
    """Runs a consumer's loop in a thread, with a player; `error` is the error that ended the loop."""

    def __init__(self, serve: Callable[[IO[bytes], IO[bytes]], None]) -> None:
        child_in, to_child = os.pipe()
        from_child, child_out = os.pipe()
        self.player = Player(os.fdopen(to_child, "wb"), os.fdopen(from_child, "rb"))
        self.error: BaseException | None = None
        ends = os.fdopen(child_in, "rb"), os.fdopen(child_out, "wb")
        self._thread = threading.Thread(target=self._run, args=(serve, *ends), daemon=True)
        self._thread.start()

    def _run(
        self, serve: Callable[[IO[bytes], IO[bytes]], None], stdin: IO[bytes], stdout: IO[bytes]
    ) -> None:
        try:
            serve(stdin, stdout)
        except BaseException as error:
            self.error = error
        finally:
            stdin.close()
            with suppress(BrokenPipeError):
                stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.player.close()
        self._thread.join(timeout=30)


def spawn(command: Sequence[str], environ: Mapping[str, str]) -> tuple[Player, subprocess.Popen[bytes]]:
    """Start a consumer as a separate process, as KCL does; return a player for it, and the process."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(environ))
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("no pipes")
    return Player(process.stdin, process.stdout), process
