"""Where a pipe sends: a Kinesis stream, or an API destination."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from stream_app.local.deployers.intrinsics import wrong
from stream_app.local.pipes.patterns import MISSING, Record, compile_value
from stream_app.telemetry import log

# The answer of a request is its status; (method, url, headers, body).
Post = Callable[[str, str, Mapping[str, str], bytes], int]


class Unresolved(Exception):  # noqa: N818
    """A record lacks what a target parameter points at; another try will not help."""


class Target(Protocol):
    """Somewhere that takes records. `most` is the largest batch."""

    most: int

    def prepare(self, seen: Record, data: bytes) -> Any:
        """What is to be sent for one record. Raises Unresolved."""

    def send(self, entries: Sequence[Any]) -> list[int]:
        """Send once; returns the indexes of the entries that were not taken."""


class StreamTarget:
    """PutRecords into a stream, with the partition key that the pipe's parameters say."""

    most = 500

    def __init__(self, kinesis: Any, arn: str, parameters: Mapping[str, Any]) -> None:
        own = checked(parameters, "KinesisStreamParameters", {"PartitionKey"})
        self._kinesis, self._arn = kinesis, arn
        self._key = compile_value(own["PartitionKey"])

    def prepare(self, seen: Record, data: bytes) -> Any:
        """One entry of PutRecords."""
        key = self._key(seen)
        if key is MISSING or key is None or isinstance(key, dict | list) or str(key) == "":
            raise Unresolved("no partition key")
        return {"Data": data, "PartitionKey": str(key)}

    def send(self, entries: Sequence[Any]) -> list[int]:
        """One PutRecords."""
        answer = self._kinesis.put_records(StreamARN=self._arn, Records=list(entries))
        if not answer.get("FailedRecordCount"):
            return []
        return [place for place, record in enumerate(answer["Records"]) if record.get("ErrorCode")]


class ApiTarget:
    """One HTTP request a record; an answer other than 2xx, or none, is a failure. Needs no secret locally."""

    most = 1

    def __init__(self, post: Post, destination: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
        known = {"HeaderParameters", "PathParameterValues", "QueryStringParameters"}
        own = checked(parameters, "HttpParameters", known)
        self._post, self._method = post, str(destination["HttpMethod"])
        self._url = str(destination["InvocationEndpoint"])
        self._headers = {n: compile_value(v) for n, v in own.get("HeaderParameters", {}).items()}
        self._query = {n: compile_value(v) for n, v in own.get("QueryStringParameters", {}).items()}
        self._path = [compile_value(v) for v in own.get("PathParameterValues", ())]

    def prepare(self, seen: Record, data: bytes) -> Any:
        """Method, URL, headers and body; each * of the endpoint takes the next path parameter."""
        url = self._url
        for value in self._path:
            url = url.replace("*", quote(_text(value(seen)), safe=""), 1)
        if self._query:
            pairs = urlencode({name: _text(value(seen)) for name, value in self._query.items()})
            url = f"{url}{'&' if '?' in url else '?'}{pairs}"
        headers = {"Content-Type": "application/json; charset=utf-8"}
        headers |= {name: _text(value(seen)) for name, value in self._headers.items()}
        return self._method, url, headers, data

    def send(self, entries: Sequence[Any]) -> list[int]:
        """The requests, one after the other."""
        failed = []
        for place, entry in enumerate(entries):
            try:
                status = self._post(*entry)
            except Exception as error:
                # Whatever the far end or the network did, it is the endpoint's failure and is tried again.
                log.get().warning("API destination is out of reach", error=type(error).__name__)
                status = 0
            if not 200 <= status < 300:
                failed.append(place)
        return failed


def checked(parameters: Mapping[str, Any], section: str, known: set[str]) -> Mapping[str, Any]:
    """The target's own section of a pipe's TargetParameters. Raises ConfigError for what is not known here."""
    unknown = sorted(set(parameters) - {"InputTemplate", section})
    unknown += sorted(set(parameters.get(section, {})) - known)
    if unknown:
        raise wrong(
            f"TargetParameters has {', '.join(unknown)}", "teach stream_app.local.pipes.targets of it"
        )
    own: Mapping[str, Any] = parameters.get(section, {})
    return own


def _text(value: Any) -> str:
    if value is MISSING:
        raise Unresolved("a parameter of the API destination points at nothing")
    return value if isinstance(value, str) else str(value)
