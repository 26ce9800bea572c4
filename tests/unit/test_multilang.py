"""The child's side of the MultiLang protocol."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.consumer.protocol.multilang import Checkpointer, serve
from stream_app.errors import FatalError, LeaseLostError, TransientError
from stream_app.model.record import Record


class Recorder:
    """A handler that notes its calls; `on_records` is called with the checkpointer."""

    def __init__(self, on_records: Callable[[Checkpointer], None] = lambda _checkpointer: None) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._on_records = on_records

    def initialize(self, shard: str, sequence: str | None, sub: int | None) -> None:
        self.calls.append(("initialize", shard, sequence, sub))

    def process(self, records: Sequence[Record], behind_ms: int | None, checkpointer: Checkpointer) -> None:
        self.calls.append(("process", list(records), behind_ms))
        self._on_records(checkpointer)

    def lease_lost(self) -> None:
        self.calls.append(("lease lost",))

    def shard_ended(self, checkpointer: Checkpointer) -> None:
        self.calls.append(("shard ended",))
        checkpointer.checkpoint(None, None)

    def shutdown_requested(self, checkpointer: Checkpointer) -> None:
        self.calls.append(("shutdown requested",))


def line(**message: Any) -> bytes:
    return json.dumps(message).encode() + b"\n"


TICK = line(action="processRecords", records=[], millisBehindLatest=0)
OK = line(action="checkpoint", sequenceNumber="5", subSequenceNumber=0, error=None)


def talk(handler: Recorder, *lines: bytes) -> list[dict[str, Any]]:
    """Return the child's answers to these lines."""
    answers = io.BytesIO()
    serve(handler, io.BytesIO(b"".join(lines)), answers)
    return [json.loads(answer) for answer in answers.getvalue().splitlines() if answer]


def commit(checkpointer: Checkpointer) -> None:
    checkpointer.checkpoint("5", 2)


def test_each_action_is_answered_with_its_status() -> None:
    handler = Recorder()
    sent = {
        "initialize": line(action="initialize", shardId="s", sequenceNumber="7", subSequenceNumber=1),
        "processRecords": TICK,
        "leaseLost": line(action="leaseLost"),
        "shardEnded": line(action="shardEnded") + OK,
        "shutdownRequested": line(action="shutdownRequested"),
    }
    answers = talk(handler, *sent.values())
    statuses = [answer["responseFor"] for answer in answers if answer["action"] == "status"]
    assert statuses == list(sent)
    assert handler.calls == [
        ("initialize", "s", "7", 1),
        ("process", [], 0),
        ("lease lost",),
        ("shard ended",),
        ("shutdown requested",),
    ]


@pytest.mark.parametrize(("reason", "call"), [("TERMINATE", "shard ended"), ("ZOMBIE", "lease lost")])
def test_older_daemons_use_another_shutdown_message(reason: str, call: str) -> None:
    handler = Recorder()
    answers = talk(handler, line(action="shutdown", reason=reason) + (OK if call == "shard ended" else b""))
    assert handler.calls == [(call,)]
    assert answers[-1] == {"action": "status", "responseFor": "shutdown"}


def test_a_checkpoint_is_requested_before_the_status() -> None:
    answers = talk(Recorder(commit), TICK, OK)
    assert answers == [
        {"action": "checkpoint", "sequenceNumber": "5", "subSequenceNumber": 2},
        {"action": "status", "responseFor": "processRecords"},
    ]


@given(
    st.lists(st.tuples(st.binary(max_size=40), st.text(st.characters(exclude_categories=["Cs"]), max_size=9)))
)
def test_records_are_decoded_unchanged(sent: list[tuple[bytes, str]]) -> None:
    handler = Recorder()
    records = [
        {
            "action": "record",
            "data": b64encode(data).decode(),
            "partitionKey": key,
            "sequenceNumber": str(10**55 + at),
            "subSequenceNumber": at,
            "approximateArrivalTimestamp": at * 1_000,
        }
        for at, (data, key) in enumerate(sent)
    ]
    talk(handler, line(action="processRecords", records=records, millisBehindLatest=5))
    ((_, received, behind),) = handler.calls
    assert behind == 5
    assert received == [
        Record(data, key, str(10**55 + at), at * 1_000, at) for at, (data, key) in enumerate(sent)
    ]


def test_unknown_fields_of_a_later_daemon_are_ignored() -> None:
    handler = Recorder()
    talk(handler, line(action="processRecords", records=[], millisBehindLatest=None, more={"a": 1}))
    assert handler.calls == [("process", [], None)]


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\n",
        b"\n",
        b"{}\n",
        b'{"action":"dance"}\n',
        b'{"action":"processRecords"}\n',
        b'{"action":"processRecords","records":[{"action":"record"}]}\n',
        (
            b'{"action":"processRecords","records":[{"action":"record","data":"!","partitionKey":"k",'
            b'"sequenceNumber":"1","approximateArrivalTimestamp":1}]}\n'
        ),
        b'{"action":"initialize"}\n',
        b'{"action":"shutdown","reason":"WHIM"}\n',
        OK,  # the answer to nothing
        b"\xff\xfe\n",
    ],
)
def test_a_line_outside_the_protocol_is_fatal(sent: bytes) -> None:
    handler = Recorder()
    with pytest.raises(FatalError):
        talk(handler, sent)
    assert handler.calls == []


def test_the_end_of_input_ends_the_loop() -> None:
    assert talk(Recorder()) == []
    assert len(talk(Recorder(), TICK)) == 1


# ---- Checkpoints that fail


def refused(error: str) -> bytes:
    return line(action="checkpoint", sequenceNumber=None, subSequenceNumber=None, error=error)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("ShutdownException", LeaseLostError),
        ("ThrottlingException", TransientError),
        ("KinesisClientLibDependencyException", TransientError),
        ("InvalidStateException", FatalError),
        ("IllegalArgumentException", FatalError),
        ("SomethingNew", FatalError),
    ],
)
def test_kcl_exceptions_map_to_application_errors(error: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=error):
        talk(Recorder(commit), TICK, refused(error))


def test_a_checkpoint_may_be_retried() -> None:
    def twice(checkpointer: Checkpointer) -> None:
        with pytest.raises(TransientError):
            checkpointer.checkpoint("5", 2)
        checkpointer.checkpoint("5", 2)

    answers = talk(Recorder(twice), TICK, refused("ThrottlingException"), OK)
    assert [answer["action"] for answer in answers] == ["checkpoint", "checkpoint", "status"]


def test_an_action_instead_of_a_checkpoint_answer_is_fatal() -> None:
    with pytest.raises(FatalError, match="ProcessRecords"):
        talk(Recorder(commit), TICK, TICK)


def test_a_daemon_that_exits_during_a_checkpoint_is_a_lost_lease() -> None:
    with pytest.raises(LeaseLostError):
        talk(Recorder(commit), TICK)


# ---- What the child writes


def test_an_exception_of_the_handler_ends_the_loop_without_an_answer() -> None:
    def fail(_checkpointer: Checkpointer) -> None:
        raise FatalError("no")

    answers = io.BytesIO()
    with pytest.raises(FatalError, match="no"):
        serve(Recorder(fail), io.BytesIO(TICK + TICK), answers)
    assert answers.getvalue() == b""


def test_an_unfinished_line_of_other_output_does_not_corrupt_an_answer() -> None:
    answers = io.BytesIO(b"an import said hello")
    answers.seek(0, io.SEEK_END)
    serve(Recorder(), io.BytesIO(TICK), answers)
    assert json.loads(answers.getvalue().splitlines()[1]) == {
        "action": "status",
        "responseFor": "processRecords",
    }


class _Broken(io.BytesIO):
    def write(self, _data: Any) -> int:
        raise BrokenPipeError


def test_a_closed_output_pipe_is_not_an_error() -> None:
    handler = Recorder()
    serve(handler, io.BytesIO(TICK + TICK), _Broken())
    assert len(handler.calls) == 1


def test_a_checkpoint_on_a_closed_pipe_is_a_lost_lease() -> None:
    with pytest.raises(LeaseLostError, match="the daemon has ended"):
        serve(Recorder(commit), io.BytesIO(TICK), _Broken())


@given(st.data())
def test_a_line_cut_short_by_a_killed_daemon_is_the_end_of_input(
    data: st.DataObject,
) -> None:
    record = {
        "action": "record",
        "data": b64encode("größe".encode()).decode(),
        "partitionKey": "größe",
        "sequenceNumber": "7",
        "subSequenceNumber": 0,
        "approximateArrivalTimestamp": 5,
    }
    lines = (
        line(action="initialize", shardId="s", sequenceNumber="TRIM_HORIZON", subSequenceNumber=0),
        json.dumps({"action": "processRecords", "records": [record]}, ensure_ascii=False).encode() + b"\n",
        OK,
    )
    whole = data.draw(st.sampled_from(lines))
    part = whole[: data.draw(st.integers(1, len(whole) - 2))]
    handler = Recorder()
    with pytest.raises(LeaseLostError, match="the daemon has ended"):
        talk(handler, TICK, part)
    assert len(handler.calls) == 1, "what came before it was processed"
    with pytest.raises(LeaseLostError, match="the daemon has ended"):
        talk(Recorder(commit), TICK, part)
    with pytest.raises(FatalError, match="not a protocol message"):
        talk(Recorder(), part + b"\n")
