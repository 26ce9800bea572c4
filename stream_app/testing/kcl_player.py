"""KCL's side of the MultiLang protocol, to drive a consumer in a test."""

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


class ConsumerEndedError(AssertionError):
    """The consumer closed its end instead of answering: as KCL sees a crash."""


class Player:
    """KCL's side of the MultiLang protocol: it sends actions, answers checkpoints, and keeps what it saw.

    `checkpoints` holds (sequence, sub) of each that succeeded, (None, None) for the end of a shard. Errors that
    `fail_checkpoints` names are given to the next checkpoints instead. `stray` holds lines that are no message;
    as KCL does, the player passes them over.
    """

    def __init__(self, to_child: IO[bytes], from_child: IO[bytes]) -> None:
        self._out, self._in = to_child, from_child
        self._errors: deque[str | None] = deque()
        self.checkpoints: list[tuple[str | None, int | None]] = []
        self.refused: list[tuple[str | None, str]] = []
        self.stray: list[bytes] = []

    def fail_checkpoints(self, *errors: str | None) -> None:
        """KCL's exception for each of the next checkpoints; None lets one succeed."""
        self._errors.extend(errors)

    def initialize(self, shard: str, sequence: str = "TRIM_HORIZON", sub: int = 0) -> None:
        """Give the consumer a shard and its checkpoint."""
        self._act(
            {"action": "initialize", "shardId": shard, "sequenceNumber": sequence, "subSequenceNumber": sub}
        )

    def records(self, records: Sequence[Record], behind_ms: int = 0) -> None:
        """Deliver records."""
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
        """Deliver nothing, as KCL does about five times a second."""
        self.records([], behind_ms)

    def lease_lost(self) -> None:
        """Tell that another worker has the shard."""
        self._act({"action": "leaseLost"})

    def shard_ended(self) -> None:
        """Tell that the shard was read to its end."""
        self._act({"action": "shardEnded"})

    def shutdown_requested(self) -> None:
        """Tell that the daemon is about to stop."""
        self._act({"action": "shutdownRequested"})

    def close(self) -> None:
        """Close both pipes, as a dying daemon does."""
        for pipe in (self._out, self._in):
            with suppress(BrokenPipeError):  # what was not yet written is for nobody
                pipe.close()

    def _act(self, message: dict[str, Any]) -> None:
        self._send(message)
        while True:
            answer = self._receive()
            if answer["action"] == "checkpoint":
                self._answer_checkpoint(answer)
            elif answer == {"action": "status", "responseFor": message["action"]}:
                return
            else:
                raise AssertionError(f"unexpected answer to {message['action']}: {answer}")

    def _answer_checkpoint(self, asked: dict[str, Any]) -> None:
        sequence, sub = asked["sequenceNumber"], asked["subSequenceNumber"]
        error = self._errors.popleft() if self._errors else None
        if error is None:
            self.checkpoints.append((sequence, sub))
        else:
            self.refused.append((sequence, error))
        self._send(
            {"action": "checkpoint", "sequenceNumber": sequence, "subSequenceNumber": sub, "error": error}
        )

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._out.write(msgspec.json.encode(message) + b"\n")
            self._out.flush()
        except BrokenPipeError as error:
            raise ConsumerEndedError("the consumer has ended") from error

    def _receive(self) -> dict[str, Any]:
        while line := self._in.readline():
            message = _message(line)
            if message is not None:
                return message
            if line.strip():
                self.stray.append(line)
        raise ConsumerEndedError("the consumer ended without an answer")


def _message(line: bytes) -> dict[str, Any] | None:
    try:
        message = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return message if "action" in message else None


class Played:
    """A player, and the consumer's loop in a thread of this process; `error` is what ended the loop."""

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
    """Start a consumer as KCL does, as a process of its own, and a player for it."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(environ))
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("no pipes")
    return Player(process.stdin, process.stdout), process
