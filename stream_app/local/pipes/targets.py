"""The targets of a pipe: a Kinesis stream or an API destination."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, urlencode

from stream_app.local.deployers.intrinsics import Properties, template_error
from stream_app.local.pipes.patterns import MISSING, Record, compile_value
from stream_app.telemetry import log

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient

# A prepared record: a PutRecords entry or an HTTP request. Only the target that prepared it reads it.
Entry = Any
# Sends an HTTP request (method, URL, headers, body) and returns the status code.
SendRequest = Callable[[str, str, Mapping[str, str], bytes], int]


class UnresolvedParameter(Exception):  # noqa: N818
    """A target parameter refers to a field that the record does not have. Not retriable."""


class Target(Protocol):
    """A target of a pipe. `max_batch` is the largest number of records per request."""

    max_batch: int

    def prepare(self, parsed: Record, data: bytes) -> Entry:
        """Build the entry for one record and its input `data`. Raises UnresolvedParameter."""

    def send(self, entries: Sequence[Entry]) -> list[int]:
        """Send the entries once. Returns the indexes of those that failed."""


class StreamTarget:
    """Writes to a stream with PutRecords. The partition key is a target parameter."""

    max_batch = 500

    def __init__(self, kinesis: KinesisClient, arn: str, parameters: Properties) -> None:
        section = validated_section(parameters, "KinesisStreamParameters", {"PartitionKey"})
        self._kinesis, self._arn = kinesis, arn
        self._key = compile_value(section["PartitionKey"])

    def prepare(self, parsed: Record, data: bytes) -> Entry:
        """Build a PutRecords entry."""
        key = self._key(parsed)
        if key is MISSING or key is None or isinstance(key, dict | list) or str(key) == "":
            raise UnresolvedParameter("no partition key")
        return {"Data": data, "PartitionKey": str(key)}

    def send(self, entries: Sequence[Entry]) -> list[int]:
        """Call PutRecords once."""
        answer = self._kinesis.put_records(StreamARN=self._arn, Records=list(entries))
        if not answer.get("FailedRecordCount"):
            return []
        return [index for index, record in enumerate(answer["Records"]) if record.get("ErrorCode")]


class ApiTarget:
    """Sends one HTTP request per record, without authorization. Any status other than 2xx is a failure."""

    max_batch = 1

    def __init__(self, send_request: SendRequest, destination: Properties, parameters: Properties) -> None:
        known = {"HeaderParameters", "PathParameterValues", "QueryStringParameters"}
        section = validated_section(parameters, "HttpParameters", known)
        self._send_request, self._method = send_request, str(destination["HttpMethod"])
        self._url = str(destination["InvocationEndpoint"])
        self._headers = {n: compile_value(v) for n, v in section.get("HeaderParameters", {}).items()}
        self._query = {n: compile_value(v) for n, v in section.get("QueryStringParameters", {}).items()}
        self._path = [compile_value(v) for v in section.get("PathParameterValues", ())]

    def prepare(self, parsed: Record, data: bytes) -> Entry:
        """Build method, URL, headers and body. Each `*` in the endpoint is replaced with the next path parameter."""
        url = self._url
        for value in self._path:
            url = url.replace("*", quote(_text(value(parsed)), safe=""), 1)
        if self._query:
            pairs = urlencode({name: _text(value(parsed)) for name, value in self._query.items()})
            url = f"{url}{'&' if '?' in url else '?'}{pairs}"
        headers = {"Content-Type": "application/json; charset=utf-8"}
        headers |= {name: _text(value(parsed)) for name, value in self._headers.items()}
        return self._method, url, headers, data

    def send(self, entries: Sequence[Entry]) -> list[int]:
        """Send the requests one after the other."""
        failed = []
        for index, entry in enumerate(entries):
            try:
                status = self._send_request(*entry)
            except Exception as error:
                # Any network or protocol error counts as a failed request, which the pipe retries.
                log.get().warning("API destination is out of reach", error=type(error).__name__)
                status = 0
            if not 200 <= status < 300:
                failed.append(index)
        return failed


def validated_section(parameters: Properties, section: str, known: set[str]) -> Properties:
    """Return the target's section of a pipe's TargetParameters. Raises ConfigError for an unknown parameter."""
    unknown = sorted(set(parameters) - {"InputTemplate", section})
    unknown += sorted(set(parameters.get(section, {})) - known)
    if unknown:
        raise template_error(
            f"unknown TargetParameters {', '.join(unknown)}",
            "remove them, or support them in stream_app.local.pipes.targets",
        )
    found: Properties = parameters.get(section, {})
    return found


def _text(value: object) -> str:
    if value is MISSING:
        raise UnresolvedParameter("a parameter of the API destination has no value in the record")
    return value if isinstance(value, str) else str(value)
