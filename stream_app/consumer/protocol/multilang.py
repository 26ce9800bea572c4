"""KCL's MultiLang protocol, the child's side: one JSON object a line on stdin and stdout.

amazon_kclpy's own loop reports an action as done when its handler raised, and the records are lost. Here an
error leaves this function, the process ends without a checkpoint, and KCL reads the records again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Any, Protocol

import msgspec

from stream_app.consumer.protocol.line_reader import LineReader, Source, taken
from stream_app.errors import FatalError, LeaseLostError, TransientError
from stream_app.model.record import Record


class Initialize(msgspec.Struct, tag="initialize", tag_field="action", rename="camel", frozen=True):
    """The shard, and the checkpoint after which its records will follow (or TRIM_HORIZON, LATEST, AT_TIMESTAMP)."""

    shard_id: str
    sequence_number: str | None = None
    sub_sequence_number: int | None = None


class ProcessRecords(msgspec.Struct, tag="processRecords", tag_field="action", rename="camel", frozen=True):
    """Records in order; an empty list is a tick."""

    records: Sequence[Record]
    millis_behind_latest: int | None = None


class LeaseLost(msgspec.Struct, tag="leaseLost", tag_field="action", frozen=True):
    """Another worker owns the shard now."""


class ShardEnded(msgspec.Struct, tag="shardEnded", tag_field="action", frozen=True):
    """A closed shard was read to its end."""


class ShutdownRequested(msgspec.Struct, tag="shutdownRequested", tag_field="action", frozen=True):
    """The daemon is about to stop: the last chance to checkpoint."""


class Shutdown(msgspec.Struct, tag="shutdown", tag_field="action", frozen=True):
    """The end as older daemons say it: TERMINATE is the end of the shard, ZOMBIE the loss of the lease."""

    reason: str = ""


class CheckpointReply(msgspec.Struct, tag="checkpoint", tag_field="action", rename="camel", frozen=True):
    """The daemon's answer to a checkpoint; `error` names KCL's exception."""

    sequence_number: str | None = None
    sub_sequence_number: int | None = None
    error: str | None = None


Message = (
    Initialize | ProcessRecords | LeaseLost | ShardEnded | ShutdownRequested | Shutdown | CheckpointReply
)
_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
_encode = msgspec.json.encode

_GONE = "the daemon is gone"
_LINE_BREAK = ord("\n")
_LOST = frozenset({"ShutdownException", "LeaseLostException"})
_AGAIN = frozenset(
    {"ThrottlingException", "KinesisClientLibDependencyException", "ProvisionedThroughputExceededException"}
)


class Checkpointer(Protocol):
    """Commits a position; None means the end of the shard."""

    def checkpoint(self, sequence: str | None, sub: int | None) -> None:
        """Raises LeaseLostError, TransientError (try again), FatalError."""
        ...


class Handler(Protocol):
    """What a shard's consumer does on each action."""

    def initialize(self, shard: str, sequence: str | None, sub: int | None) -> None:
        """Load the state of the checkpoint given."""
        ...

    def process(self, records: Sequence[Record], behind_ms: int | None, checkpointer: Checkpointer) -> None:
        """Take records in order, or a tick."""
        ...

    def lease_lost(self) -> None:
        """Stop; never commit."""
        ...

    def shard_ended(self, checkpointer: Checkpointer) -> None:
        """Flush everything, then checkpoint the end."""
        ...

    def shutdown_requested(self, checkpointer: Checkpointer) -> None:
        """Commit what is complete."""
        ...


class _Wire:
    """The two pipes. A checkpoint may be sent only while an action is being answered."""

    def __init__(self, stdin: Source, stdout: IO[bytes]) -> None:
        self._in, self._out = LineReader(stdin), stdout

    def read(self) -> Message | None:
        line = self._in.read()
        if line is None:
            return None
        found = taken(line)
        if found is not None:
            return ProcessRecords(found.records, found.behind_ms)
        try:
            return _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            if line[-1] != _LINE_BREAK:  # the end of input: the daemon was killed while it wrote
                raise LeaseLostError(_GONE) from error
            raise FatalError(f"the daemon sent a line that is not of the protocol: {error}") from error

    def write(self, message: dict[str, Any]) -> None:
        # A line begins with a line break, so that a stray unfinished line before it cannot swallow it.
        try:
            self._out.write(b"\n" + _encode(message) + b"\n")
            self._out.flush()
        except BrokenPipeError as error:
            raise LeaseLostError(_GONE) from error

    def checkpoint(self, sequence: str | None, sub: int | None) -> None:
        self.write({"action": "checkpoint", "sequenceNumber": sequence, "subSequenceNumber": sub})
        reply = self.read()
        if reply is None:
            raise LeaseLostError(_GONE)
        if not isinstance(reply, CheckpointReply):
            raise FatalError(f"expected the answer to a checkpoint, got {type(reply).__name__}")
        if reply.error is None:
            return
        if reply.error in _LOST:
            raise LeaseLostError(reply.error)
        if reply.error in _AGAIN:
            raise TransientError(reply.error)
        raise FatalError(f"KCL refused checkpoint {sequence}: {reply.error}")


def serve(handler: Handler, stdin: Source, stdout: IO[bytes]) -> None:
    """Answer the daemon until it closes stdin, or is gone. What the handler raises ends it, without an answer.

    Raises LeaseLostError where the input ends in the middle of a line.
    """
    wire = _Wire(stdin, stdout)
    while (message := wire.read()) is not None:
        _dispatch(handler, message, wire)
        try:
            wire.write({"action": "status", "responseFor": message.__struct_config__.tag})
        except LeaseLostError:
            return


def _dispatch(handler: Handler, message: Message, wire: _Wire) -> None:
    match message:
        case ProcessRecords(records, behind):
            handler.process(records, behind, wire)
        case Initialize(shard, sequence, sub):
            handler.initialize(shard, sequence, sub)
        case LeaseLost() | Shutdown("ZOMBIE"):
            handler.lease_lost()
        case ShardEnded() | Shutdown("TERMINATE"):
            handler.shard_ended(wire)
        case ShutdownRequested():
            handler.shutdown_requested(wire)
        case _:
            raise FatalError(f"the daemon sent {type(message).__name__} where an action was expected")
