"""The daemon's log: no line is lost or duplicated, and KCL's own INFO lines are logged as DEBUG."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.daemon.log import DaemonLog, json_lines, parse

Line = dict[str, Any]
SHARDS = st.integers(0, 3).map(lambda n: f"shardId-{n:012d}")
# Lines that Java's BufferedReader can return: any text without line breaks.
TEXT = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))


def kcl(message: str, logger: str = "Scheduler", level: str = "INFO", thread: str = "t-1") -> str:
    return f"2026-11-20T10:00:00.000Z\t{level}\t{thread}\t{logger}\t{message}\u2028"


def child(text: str, shard: str) -> str:
    sent = f"Received error line from subprocess [{text}] for shard {shard}"
    return kcl(sent, "DrainChildSTDERRTask", "ERROR")


def reader() -> tuple[list[Line], DaemonLog]:
    seen: list[Line] = []
    return seen, DaemonLog(seen.append, lambda: "now")


@given(st.lists(st.tuples(TEXT, SHARDS)))
def test_a_line_of_a_child_is_logged_once_with_its_shard(sent: list[tuple[str, str]]) -> None:
    seen, log = reader()
    for text, shard in sent:
        log.out(child(text, shard))
    for text, _shard in sent:
        log.err(text)
    log.flush()
    plain = [(t, s) for t, s in sent if t.strip() and not t.startswith(("{", "Traceback"))]
    logged_pairs = [(line["message"], line["shard"]) for line in seen if line["event"] == "stderr"]
    assert [pair for pair in logged_pairs if pair in plain] == plain
    assert all(line["source"] == "app" for line in seen)


@given(st.dictionaries(st.text(min_size=1), st.integers() | st.text() | st.none()), SHARDS)
def test_a_json_line_of_a_child_is_logged_with_its_shard(sent: Line, shard: str) -> None:
    seen, log = reader()
    log.out(child(json.dumps(sent), shard))
    assert len(seen) == 1
    assert {**seen[0], **sent, "source": "app"} == seen[0]
    assert seen[0]["shard"] == sent.get("shard", shard)


@given(st.lists(TEXT.filter(str.strip), min_size=1))
def test_lines_of_the_jvm_are_not_attributed_to_a_child(lines: list[str]) -> None:
    seen, log = reader()
    for line in lines:
        log.err(line)
    log.flush()
    assert "\n".join(m for line in seen for m in [line["message"], line.get("stack")] if m) == "\n".join(
        lines
    )
    assert {line["source"] for line in seen} == {"kcl"}


def test_a_traceback_of_a_child_is_one_event() -> None:
    seen, log = reader()
    sent = ["Traceback (most recent call last):", '  File "x.py", line 1', "", "    f()", "ValueError: boom"]
    for shard in ("shardId-000000000000", "shardId-000000000001"):
        for text in sent[:3]:
            log.out(child(text, shard))
    for shard in ("shardId-000000000001", "shardId-000000000000"):
        for text in sent[3:]:
            log.out(child(text, shard))
    assert [line["shard"][-1] for line in seen] == ["1", "0"]
    assert {(line["event"], line["level"], line["message"]) for line in seen} == {
        ("traceback", "ERROR", "ValueError: boom")
    }
    assert seen[0]["stack"].splitlines() == sent


def test_an_incomplete_traceback_is_logged_on_flush() -> None:
    seen, log = reader()
    log.out(child("Traceback (most recent call last):", "shardId-000000000000"))
    assert seen == []
    log.flush()
    assert [line["event"] for line in seen] == ["traceback"]


def test_a_stack_trace_is_one_event() -> None:
    line = parse(kcl("it broke\u2028java.io.IOException: x\u2028\tat a.b(C.java:1)", level="ERROR"))
    assert line is not None
    assert (line["message"], line["level"]) == ("it broke", "ERROR")
    assert line["stack"] == "java.io.IOException: x\n\tat a.b(C.java:1)"


def test_a_stack_trace_on_stderr_is_one_event() -> None:
    seen, log = reader()
    for text in ("java.lang.Error: x", "\tat a.b(C.java:1)", "Caused by: y", "\tat d", "bye"):
        log.err(text)
    log.flush()
    assert [(line["level"], line["message"]) for line in seen] == [
        ("ERROR", "java.lang.Error: x"),
        ("WARN", "bye"),
    ]
    assert seen[0]["stack"] == "\tat a.b(C.java:1)\nCaused by: y\n\tat d"


@given(TEXT.filter(str.strip), st.sampled_from(["INFO", "WARN", "ERROR", "DEBUG"]))
def test_info_lines_of_kcl_are_logged_as_debug(message: str, level: str) -> None:
    line = parse(kcl(message, level=level))
    assert line is not None
    assert line["level"] == ("DEBUG" if level == "INFO" else level)
    assert (line["source"], line["event"]) == ("kcl", "kcl")


@pytest.mark.parametrize(
    ("action", "event"),
    [
        ("initialize", "shard_initialized"),
        ("shardEnded", "shard_ended"),
        ("leaseLost", "lease_lost"),
        ("shutdownRequested", "shard_stopping"),
    ],
)
def test_a_response_of_a_child_is_an_event_of_its_shard(action: str, event: str) -> None:
    sent = '{"action":"status","responseFor":"x"} from subprocess'
    message = (
        f"Received response {sent} while waiting for {action} while processing shard shardId-000000000007"
    )
    line = parse(kcl(message, "MultiLangProtocol"))
    assert line is not None
    assert (line["event"], line["shard"], line["level"]) == (event, "shardId-000000000007", "INFO")


def test_responses_to_process_records_are_not_logged() -> None:
    message = "Received response {} from subprocess while waiting for processRecords while processing shard s"
    assert parse(kcl(message, "MultiLangProtocol")) is None


def test_a_failed_child_is_logged_with_its_shard_and_exit_code() -> None:
    seen, log = reader()
    for thread, shard in (("a", "shardId-000000000001"), ("b", "shardId-000000000002")):
        silent = f"Failed to get status message for processRecords action for shard {shard}"
        log.out(kcl(silent, "MultiLangProtocol", "ERROR", thread))
    for thread, code in (("b", 2), ("a", 137)):
        failed = "Encountered an error while trying to process records"
        log.out(kcl(failed, "MultiLangShardRecordProcessor", "ERROR", thread))
        log.out(
            kcl(f"Child process exited with value: {code}", "MultiLangShardRecordProcessor", "INFO", thread)
        )
    logged = [line for line in seen if line["level"] != "DEBUG"]
    assert [(line["event"], line["shard"][-1], line.get("code")) for line in logged] == [
        ("child_failed", "2", None),
        ("child_exited", "2", 2),
        ("child_failed", "1", None),
        ("child_exited", "1", 137),
    ]


def test_a_clean_exit_of_a_child_is_logged_as_debug() -> None:
    line = parse(kcl("Child process exited with value: 0", "MultiLangShardRecordProcessor"))
    assert line is not None
    assert (line["event"], line["level"], line["code"]) == ("child_exited", "DEBUG", 0)


@given(st.sampled_from(["DEBUG", "INFO", "WARN", "warning", "ERROR", "critical", "odd", None]))
def test_the_writer_drops_lines_below_its_level(level: str | None) -> None:
    out = io.BytesIO()
    line = {"event": "x"} if level is None else {"event": "x", "level": level}
    json_lines(out, "WARN")(line)
    kept = level in ("WARN", "warning", "ERROR", "critical")
    assert [json.loads(text) for text in out.getvalue().splitlines()] == ([line] if kept else [])
