"""The child's side of KCL's MultiLang protocol: one JSON object per line on stdin and stdout.

The loop of amazon_kclpy reports an action as done even if its handler raised an error, and the records are lost. Here
an error ends the process without a checkpoint, and KCL reads the records again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, Protocol

import msgspec

from stream_app.consumer.protocol.line_reader import LineReader, Source, read_record_line
from stream_app.errors import FatalError, LeaseLostError, TransientError
from stream_app.model.record import Record


class Initialize(msgspec.Struct, tag="initialize", tag_field="action", rename="camel", frozen=True):
    """The shard, and the checkpoint after which it will be read (or TRIM_HORIZON, LATEST, AT_TIMESTAMP)."""

    shard_id: str
    sequence_number: str | None = None
    sub_sequence_number: int | None = None


class ProcessRecords(msgspec.Struct, tag="processRecords", tag_field="action", rename="camel", frozen=True):
    """Records in order; none in a tick, which the daemon sends while there are no records."""

    records: Sequence[Record]
    millis_behind_latest: int | None = None


class LeaseLost(msgspec.Struct, tag="leaseLost", tag_field="action", frozen=True):
    """Another worker owns the shard now."""


class ShardEnded(msgspec.Struct, tag="shardEnded", tag_field="action", frozen=True):
    """A closed shard was read to its end."""


class ShutdownRequested(msgspec.Struct, tag="shutdownRequested", tag_field="action", frozen=True):
    """The daemon is about to stop: the last chance to checkpoint."""


class Shutdown(msgspec.Struct, tag="shutdown", tag_field="action", frozen=True):
    """The form of older daemons: TERMINATE is the end of the shard, ZOMBIE the loss of the lease."""

    reason: str = ""


class CheckpointReply(msgspec.Struct, tag="checkpoint", tag_field="action", rename="camel", frozen=True):
    """The daemon's response to a checkpoint; `error` names KCL's exception."""

    sequence_number: str | None = None
    sub_sequence_number: int | None = None
    error: str | None = None


Message = (
    Initialize | ProcessRecords | LeaseLost | ShardEnded | ShutdownRequested | Shutdown | CheckpointReply
)
_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
_encode = msgspec.json.encode

_GONE = "the daemon has ended"
_LINE_BREAK = ord("\n")
_LOST = frozenset({"ShutdownException", "LeaseLostException"})
_TRANSIENT = frozenset(
    {"ThrottlingException", "KinesisClientLibDependencyException", "ProvisionedThroughputExceededException"}
)


class Checkpointer(Protocol):
    """Commits a position; None means the end of the shard."""

    def checkpoint(self, sequence: str | None, sub: int | None) -> None:
        """Commit the position. Raises LeaseLostError, TransientError (retry) or FatalError."""
        ...


class Handler(Protocol):
    """Handles the actions of the protocol for one shard."""

    def initialize(self, shard: str, sequence: str | None, sub: int | None) -> None:
        """Load the state of the checkpoint."""
        ...

    def process(self, records: Sequence[Record], behind_ms: int | None, checkpointer: Checkpointer) -> None:
        """Process records in order, or a tick."""
        ...

    def lease_lost(self) -> None:
        """Stop without a commit."""
        ...

    def shard_ended(self, checkpointer: Checkpointer) -> None:
        """Flush everything, then commit the end of the shard."""
        ...

    def shutdown_requested(self, checkpointer: Checkpointer) -> None:
        """Commit complete segments."""
        ...


class _Connection:
    """The pipes to and from the daemon. A checkpoint may be sent only while an action is being handled."""

    def __init__(self, stdin: Source, stdout: IO[bytes]) -> None:
        self._in, self._out = LineReader(stdin), stdout

    def read(self) -> Message | None:
        line = self._in.read()
        if line is None:
            return None
        found = read_record_line(line)
        if found is not None:
            return ProcessRecords(found.records, found.behind_ms)
        try:
            return _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            if line[-1] != _LINE_BREAK:  # the daemon was killed while it wrote the line
                raise LeaseLostError(_GONE) from error
            raise FatalError(f"the daemon sent a line that is not a protocol message: {error}") from error

    def write(self, message: Mapping[str, str | int | None]) -> None:
        # A leading line break separates the message from an incomplete line of other output before it.
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
            raise FatalError(f"expected the response to a checkpoint, got {type(reply).__name__}")
        if reply.error is None:
            return
        if reply.error in _LOST:
            raise LeaseLostError(reply.error)
        if reply.error in _TRANSIENT:
            raise TransientError(reply.error)
        raise FatalError(f"KCL rejected checkpoint {sequence}: {reply.error}")


def serve(handler: Handler, stdin: Source, stdout: IO[bytes]) -> None:
    """Handle the daemon's actions until it closes stdin or ends. An error of the handler is raised unanswered.

    Raises LeaseLostError if the input ends in the middle of a line.
    """
    connection = _Connection(stdin, stdout)
    while (message := connection.read()) is not None:
        _dispatch(handler, message, connection)
        try:
            connection.write({"action": "status", "responseFor": message.__struct_config__.tag})
        except LeaseLostError:
            return


def _dispatch(handler: Handler, message: Message, connection: _Connection) -> None:
    match message:
        case ProcessRecords(records, behind):
            handler.process(records, behind, connection)
        case Initialize(shard, sequence, sub):
            handler.initialize(shard, sequence, sub)
        case LeaseLost() | Shutdown("ZOMBIE"):
            handler.lease_lost()
        case ShardEnded() | Shutdown("TERMINATE"):
            handler.shard_ended(connection)
        case ShutdownRequested():
            handler.shutdown_requested(connection)
        case _:
            raise FatalError(f"expected an action of the daemon, got {type(message).__name__}")
