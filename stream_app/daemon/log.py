"""Converts the output of the daemon and its child processes to JSON lines.

The daemon writes its log to stdout in the format of `logback.xml`. A line that a child process wrote to stderr occurs
twice: in the log with the shard id, and unchanged on stderr of the daemon; the second copy is dropped.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

import msgspec

Line = dict[str, Any]  # decoded JSON of shard processes, whose fields are not known here
OnLine = Callable[[Line], None]

_FOLD = "\u2028"
_CHILD = re.compile(r"Received error line from subprocess \[(.*)\] for shard (\S+)", re.DOTALL)
_ANSWER = re.compile(r"Received response .* while waiting for (\w+) while processing shard (\S+)")
_SHARD = re.compile(r"\bshardId-\d+\b")
_EXIT = re.compile(r"Child process exited with value: (-?\d+)")
_RANK = {"TRACE": 0, "DEBUG": 10, "INFO": 20, "WARN": 30, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}

# Events for the responses of a child process to an action; responses to processRecords are too many to log.
_ANSWERED = {
    "initialize": "shard_initialized",
    "shardEnded": "shard_ended",
    "leaseLost": "lease_lost",
    "shutdownRequested": "shard_stopping",
}


def json_lines(stream: IO[bytes], level: str = "INFO") -> OnLine:
    """Return a function that writes lines of at least `level` to `stream` as JSON.

    It never raises, because that would end the daemon: a line that cannot be written is lost.
    """
    least = _RANK.get(level.upper(), 20)

    def write(line: Line) -> None:
        if _RANK.get(str(line.get("level", "")).upper(), 20) >= least:
            with suppress(OSError, ValueError):  # broken pipe, full disk or closed file
                stream.write(encoded(line))
                stream.flush()

    return write


def encoded(line: Line) -> bytes:
    """Encode a line as JSON with a line break; values that JSON cannot represent are written as text."""
    try:
        return msgspec.json.encode(line) + b"\n"
    except (TypeError, ValueError, RecursionError):  # such as invalid Unicode
        return json.dumps(line, default=repr, skipkeys=True).encode() + b"\n"


def parse(text: str) -> Line | None:
    """Parse a line of the daemon's log; None if it is not worth logging.

    The level INFO of KCL becomes DEBUG. Messages about child processes get the events shard_initialized, shard_ended,
    lease_lost, shard_stopping, child_silent (it closed its pipe), child_timed_out, child_failed and child_exited
    (with `code`); all others get the event `kcl`.
    """
    parts = text.split("\t", 4)
    if len(parts) != 5 or parts[1] not in _RANK:
        return _line("", "DEBUG", None, "kcl", "kcl", message=text) if text.strip() else None
    ts, level, thread, logger, folded = parts
    message, _, stack = folded.strip(_FOLD).partition(_FOLD)
    if logger == "MultiLangProtocol" and (answer := _ANSWER.fullmatch(message)):
        event = _ANSWERED.get(answer[1])
        return _line(ts, "INFO", answer[2], "kcl", event) if event else None
    line = _line(ts, "DEBUG" if level == "INFO" else level, _shard_of(message), "kcl", "kcl", message=message)
    if stack:
        line["stack"] = stack.replace(_FOLD, "\n")
    return line | _of_children(logger, message) | {"logger": logger, "thread": thread}


def launcher_line(ts: str, fields: Line) -> Line:
    """Return a line of the launcher, with level INFO unless `fields` contain another one."""
    return {"ts": ts, "level": "INFO", "source": "launcher", **fields}


def _of_children(logger: str, message: str) -> Line:
    if logger == "MultiLangShardRecordProcessor":
        if exited := _EXIT.fullmatch(message):
            code = int(exited[1])
            return {"event": "child_exited", "level": "WARN" if code else "DEBUG", "code": code}
        if message.startswith("Encountered an error "):  # logged by KCL before System.exit
            return {"event": "child_failed"}
    if logger == "MultiLangProtocol" and message.startswith("Failed to get status"):
        # KCL logs this twice with a stack trace of its own; the last lines of the child process say more.
        return {"event": "child_silent", "level": "DEBUG"}
    if logger == "MultiLangProtocol" and message.startswith("Timedout to get status"):  # sic
        return {"event": "child_timed_out"}
    return {}


def _shard_of(message: str) -> str | None:
    found = set(_SHARD.findall(message))
    return found.pop() if len(found) == 1 else None


def _line(ts: str, level: str, shard: str | None, source: str, event: str, **more: object) -> Line:
    line: Line = {"ts": ts, "level": level}
    if shard is not None:
        line["shard"] = shard
    return line | {"source": source, "event": event, **more}


class DaemonLog:
    """Converts the stdout and stderr of the daemon to lines.

    Lines of stdout must be passed before lines that arrived on stderr meanwhile, as the daemon writes in that order.
    """

    def __init__(self, on_line: OnLine, now: Callable[[], str]) -> None:
        """`now` returns the time for lines without one, in ISO 8601."""
        self._on_line = on_line
        self._now = now
        self._copies: deque[str] = deque(maxlen=65_536)
        self._tracebacks: dict[str, list[str]] = {}
        self._raw: list[str] = []
        self._silent: dict[str, str] = {}

    def out(self, text: str) -> None:
        """Process a line of the daemon's stdout."""
        parts = text.split("\t", 4)
        if len(parts) == 5 and parts[3] == "DrainChildSTDERRTask":
            if found := _CHILD.fullmatch(parts[4].strip(_FOLD)):
                self._copies.append(found[1])
                self._child(parts[0], found[2], found[1])
            return
        line = parse(text)
        if line is not None:
            line["ts"] = line["ts"] or self._now()
            self._on_line(self._with_shard(line))

    def err(self, text: str) -> None:
        """Process a line of the daemon's stderr: a copy of a child's line, or a message of the JVM."""
        if text in self._copies:
            self._copies.remove(text)
        elif self._raw and text.startswith((" ", "\t", "Caused by:")):
            self._raw.append(text)
        else:
            self._flush_raw()
            if text.strip():
                self._raw.append(text)

    def flush(self) -> None:
        """Emit lines that wait for a continuation."""
        self._flush_raw()
        for shard in list(self._tracebacks):
            self._flush_traceback(shard, self._now())

    def _with_shard(self, line: Line) -> Line:
        """Add the shard of a failed child process, which KCL logs only in the previous line of the same thread."""
        thread, event = str(line.get("thread")), line["event"]
        if event == "child_silent":
            self._silent[thread] = line["shard"]
        elif event in ("child_failed", "child_exited") and thread in self._silent:
            shard = self._silent.pop(thread) if event == "child_exited" else self._silent[thread]
            return {"ts": line["ts"], "level": line["level"], "shard": shard, **line}
        return line

    def _child(self, ts: str, shard: str, text: str) -> None:
        fields = _json_object(text)
        if fields is None and (at := text.find('{"')) > 0 and text.endswith("}"):
            fields = _json_object(text[at:])  # preceded by a print without a line break
            if fields is not None:
                self._child(ts, shard, text[:at])
        if fields is not None:
            self._on_line(_line(ts, "INFO", shard, "app", "app") | fields | {"source": "app"})
        elif shard in self._tracebacks:
            self._tracebacks[shard].append(text)
            if text and not text[0].isspace():  # the line of the exception ends a traceback
                self._flush_traceback(shard, ts)
        elif text.startswith("Traceback (most recent call last)"):
            self._tracebacks[shard] = [text]
        elif text.strip():
            self._on_line(_line(ts, "INFO", shard, "app", "stderr", message=text))

    def _flush_traceback(self, shard: str, ts: str) -> None:
        lines = self._tracebacks.pop(shard)
        last, stack = lines[-1], "\n".join(lines)
        self._on_line(_line(ts, "ERROR", shard, "app", "traceback", message=last, stack=stack))

    def _flush_raw(self) -> None:
        if not self._raw:
            return
        first, *rest = self._raw
        self._raw = []
        line = _line(self._now(), "ERROR" if rest else "WARN", None, "kcl", "jvm", message=first)
        self._on_line(line | {"stack": "\n".join(rest)} if rest else line)


def _json_object(text: str) -> Line | None:
    if not text.startswith("{"):
        return None
    try:
        decoded = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None
    return decoded if isinstance(decoded, dict) else None
