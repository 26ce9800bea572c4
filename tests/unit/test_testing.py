"""Tools for users' tests: KCL's side of the protocol, and a run of one event type."""

from __future__ import annotations

import io
from typing import IO, Any

import pytest

from stream_app.errors import ConfigError, FatalError
from stream_app.model.event import Event
from stream_app.model.record import Code
from stream_app.testing import ConsumerEndedError, Played, Player, record, run
from tests.samples import READING, SCHEMAS, START

STATUS = b'{"action":"status","responseFor":"processRecords"}\n'


def player(answers: bytes) -> tuple[Player, io.BytesIO]:
    sent = io.BytesIO()
    return Player(sent, io.BytesIO(answers)), sent


def test_lines_that_are_not_messages_are_ignored_like_in_kcl() -> None:
    stray = [b"hello\n", b"[]\n", b"{}\n", b"\xff\n", b"5\n"]
    talker, _ = player(b"\n" + b"".join(stray) + STATUS)
    talker.tick()
    assert talker.stray == stray


@pytest.mark.parametrize(
    "answer", [b'{"action":"status","responseFor":"initialize"}\n', b'{"action":"other"}\n']
)
def test_an_answer_to_another_action_is_an_assertion_error(answer: bytes) -> None:
    with pytest.raises(AssertionError, match="unexpected answer to processRecords"):
        player(answer)[0].tick()


def test_a_consumer_that_does_not_answer_is_reported_as_ended() -> None:
    with pytest.raises(ConsumerEndedError):
        player(b"")[0].tick()


def test_checkpoints_get_the_configured_answers() -> None:
    asked = b'{"action":"checkpoint","sequenceNumber":"5","subSequenceNumber":1}\n'
    talker, sent = player(asked * 3 + STATUS)
    talker.fail_checkpoints("ThrottlingException", None)
    talker.tick()
    assert talker.checkpoints == [("5", 1), ("5", 1)]
    assert talker.refused == [("5", "ThrottlingException")]
    assert sent.getvalue().count(b'"error":null') == 2


def test_a_failed_consumer_exposes_its_error_and_can_be_closed_twice() -> None:
    def fail(stdin: IO[bytes], _stdout: IO[bytes]) -> None:
        stdin.readline()
        raise FatalError("no")

    with Played(fail) as session:
        with pytest.raises(ConsumerEndedError):
            session.player.tick()
        with pytest.raises(ConsumerEndedError):
            session.player.records([record(b"x" * 100_000)])
        session.player.close()
    assert isinstance(session.error, FatalError)


def test_rows_pass_the_complete_pipeline_in_order() -> None:
    rows: list[dict[str, Any]] = [
        {"id": "1", "device": "a", "time": START, "value": 1.0},
        {"id": "1", "device": "a", "time": START, "value": 1.0},
        {"id": "2", "device": "a", "time": START, "value": 500},
        {"id": "3", "device": "a"},
    ]
    ran = run(READING, rows, schema=SCHEMAS["reading"])
    assert ran.passed["doubled"].to_dict() == {0: 2.0}
    assert list(ran.repeated) == [1]
    assert [(f.row, f.code) for f in ran.failed] == [(2, Code.RULE_BROKEN), (3, Code.FIELD_MISSING)]


def test_an_event_that_does_not_match_its_schema_is_reported() -> None:
    with pytest.raises(ConfigError, match="key names 'nobody'"):
        run(Event(name="reading", key="nobody"), [], schema=SCHEMAS["reading"])
    with pytest.raises(ConfigError, match="no schema for event 'unwritten'"):
        run(Event(name="unwritten", key="device"), [])
