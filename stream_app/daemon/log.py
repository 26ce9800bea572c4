"""What the daemon and its children say, as one JSON object a line.

The daemon writes its log to stdout in the form of `logback.xml`. A line that a child wrote to stderr comes twice:
in the log, with the child's shard, and bare on the daemon's stderr, where the second copy is dropped here.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

import msgspec

Line = dict[str, Any]
OnLine = Callable[[Line], None]

_FOLD = "\u2028"
_CHILD = re.compile(r"Received error line from subprocess \[(.*)\] for shard (\S+)", re.DOTALL)
_ANSWER = re.compile(r"Received response .* while waiting for (\w+) while processing shard (\S+)")
_SHARD = re.compile(r"\bshardId-\d+\b")
_EXIT = re.compile(r"Child process exited with value: (-?\d+)")
_RANK = {"TRACE": 0, "DEBUG": 10, "INFO": 20, "WARN": 30, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}

# The answer of a child to an action, as an event of its shard; the answers to records are too many to tell.
_ANSWERED = {
    "initialize": "shard_initialized",
    "shardEnded": "shard_ended",
    "leaseLost": "lease_lost",
    "shutdownRequested": "shard_stopping",
}


def json_lines(stream: IO[bytes], level: str = "INFO") -> OnLine:
    """A receiver that writes each line of at least `level` to `stream` as JSON.

    It never raises, which would end the daemon: a line that cannot be written is lost.
    """
    least = _RANK.get(level.upper(), 20)

    def write(line: Line) -> None:
        if _RANK.get(str(line.get("level", "")).upper(), 20) >= least:
            with suppress(OSError, ValueError):  # no reader, no room, closed
                stream.write(encoded(line))
                stream.flush()

    return write


def encoded(line: Line) -> bytes:
    """A line as JSON with its line break, whatever it holds."""
    try:
        return msgspec.json.encode(line) + b"\n"
    except (
        TypeError,
        ValueError,
        RecursionError,
    ):  # text that is not Unicode, an object that has no JSON form
        return json.dumps(line, default=repr, skipkeys=True).encode() + b"\n"


def parse(text: str) -> Line | None:
    """A line of the daemon's log; None where it says nothing worth telling.

    KCL's own INFO is DEBUG here. What it says of its children has the events shard_initialized, shard_ended,
    lease_lost, shard_stopping, child_silent (it closed its pipe), child_timed_out, child_failed and child_exited
    (with `code`); all else is `kcl`.
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


def launcher_line(ts: str, said: Line) -> Line:
    """A line of this program's own, of level INFO where it does not say otherwise."""
    return {"ts": ts, "level": "INFO", "source": "launcher", **said}


def _of_children(logger: str, message: str) -> Line:
    if logger == "MultiLangShardRecordProcessor":
        if exited := _EXIT.fullmatch(message):
            code = int(exited[1])
            return {"event": "child_exited", "level": "WARN" if code else "DEBUG", "code": code}
        if message.startswith("Encountered an error "):  # what it says on its way to System.exit
            return {"event": "child_failed"}
    if logger == "MultiLangProtocol" and message.startswith("Failed to get status"):
        # Told twice, with a stack trace of KCL's own; the child's last words say more.
        return {"event": "child_silent", "level": "DEBUG"}
    if logger == "MultiLangProtocol" and message.startswith("Timedout to get status"):  # sic
        return {"event": "child_timed_out"}
    return {}


def _shard_of(message: str) -> str | None:
    found = set(_SHARD.findall(message))
    return found.pop() if len(found) == 1 else None


def _line(ts: str, level: str, shard: str | None, source: str, event: str, **more: Any) -> Line:
    line: Line = {"ts": ts, "level": level}
    if shard is not None:
        line["shard"] = shard
    return line | {"source": source, "event": event, **more}


class DaemonLog:
    """Turns the daemon's two streams into lines.

    What is on stdout must be given before what came on stderr meanwhile: the daemon writes in that order.
    """

    def __init__(self, on_line: OnLine, now: Callable[[], str]) -> None:
        """`now` gives the time for lines that carry none, as ISO-8601."""
        self._on_line = on_line
        self._now = now
        self._told: deque[str] = deque(maxlen=65_536)
        self._tracebacks: dict[str, list[str]] = {}
        self._raw: list[str] = []
        self._silent: dict[str, str] = {}

    def out(self, text: str) -> None:
        """A line of the daemon's stdout."""
        parts = text.split("\t", 4)
        if len(parts) == 5 and parts[3] == "DrainChildSTDERRTask":
            if found := _CHILD.fullmatch(parts[4].strip(_FOLD)):
                self._told.append(found[1])
                self._child(parts[0], found[2], found[1])
            return
        line = parse(text)
        if line is not None:
            line["ts"] = line["ts"] or self._now()
            self._on_line(self._with_shard(line))

    def err(self, text: str) -> None:
        """A line of the daemon's stderr: a child's second copy, or the JVM's own words."""
        if text in self._told:
            self._told.remove(text)
        elif self._raw and text.startswith((" ", "\t", "Caused by:")):
            self._raw.append(text)
        else:
            self._flush_raw()
            if text.strip():
                self._raw.append(text)

    def flush(self) -> None:
        """Tell what waits for a continuation, when none comes."""
        self._flush_raw()
        for shard in list(self._tracebacks):
            self._flush_traceback(shard, self._now())

    def _with_shard(self, line: Line) -> Line:
        """KCL names the shard of a failed child only in the line before, which the same thread wrote."""
        thread, event = str(line.get("thread")), line["event"]
        if event == "child_silent":
            self._silent[thread] = line["shard"]
        elif event in ("child_failed", "child_exited") and thread in self._silent:
            shard = self._silent.pop(thread) if event == "child_exited" else self._silent[thread]
            return {"ts": line["ts"], "level": line["level"], "shard": shard, **line}
        return line

    def _child(self, ts: str, shard: str, text: str) -> None:
        said = _json_object(text)
        if said is None and (at := text.find('{"')) > 0 and text.endswith("}"):
            said = _json_object(text[at:])  # it was written behind what a print left without a line break
            if said is not None:
                self._child(ts, shard, text[:at])
        if said is not None:
            self._on_line(_line(ts, "INFO", shard, "app", "app") | said | {"source": "app"})
        elif shard in self._tracebacks:
            self._tracebacks[shard].append(text)
            if text and not text[0].isspace():  # the exception itself ends its traceback
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
        said = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None
    return said if isinstance(said, dict) else None
