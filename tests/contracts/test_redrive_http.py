"""An endpoint over real HTTP: what it is sent, and what each of its answers means."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.cli import redrive as commands
from stream_app.errors import ConfigError
from stream_app.recovery.redrive.context import open_target
from stream_app.recovery.redrive.message import Lineage
from stream_app.recovery.redrive.plan.cases import draft_of
from stream_app.recovery.redrive.targets.auth import Auth, secret_of
from stream_app.recovery.redrive.targets.http import HttpTarget, answer, seconds
from stream_app.recovery.redrive.targets.target import (
    Answer,
    Delivered,
    Draft,
    EncodedRecord,
    Refused,
    Retryable,
    SenderRejected,
    destination,
)
from stream_app.recovery.repair.file import parse_repair
from tests import samples

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = "failures/air/2016/12/01/00/D%C3%B6ng%20si/20161201T000000.000Z-shardId-0-1-0.json"


@dataclass
class Received:
    """What the endpoint was sent; `reply` answers a request's number with status, headers and body."""

    url: str = ""
    reply: Callable[[int], tuple[int, dict[str, str], bytes]] = lambda _number: (200, {}, b"")
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    connections: int = 0


@contextmanager
def endpoint() -> Iterator[Received]:
    received = Received()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            received.connections += 1
            super().setup()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.requests.append((self.path, dict(self.headers), body))
            status, headers, answer = received.reply(len(received.requests))
            if status == 0:  # closes without a word
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        received.url = f"http://127.0.0.1:{server.server_port}/in/air?x=1"
        try:
            yield received
        finally:
            server.shutdown()
            thread.join()


def draft(data: bytes, attempt: int = 1, **repair: Any) -> Draft:
    made = draft_of(
        data, "A", Lineage(KEY, attempt), parse_repair(repair) if repair else None, samples.registry()
    )
    assert isinstance(made, Draft)
    return made


def encode(target: HttpTarget, data: bytes, attempt: int = 1, **repair: Any) -> EncodedRecord:
    made = target.encode(draft(data, attempt, **repair))
    assert isinstance(made, EncodedRecord)
    return made


@contextmanager
def opened(url: str, **how: Any) -> Iterator[HttpTarget]:
    target = HttpTarget(url, {"Authorization": "Bearer s3cret"}, **how)
    try:
        yield target
    finally:
        target.close()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b'{"event": "reading",  "value":1.0}', "application/json"),
        (b"\xff\xfe\x00", "application/octet-stream"),
        (samples.as_avro({"device": "A", "time": 1}, samples.SCHEMAS["reading"]), "application/octet-stream"),
    ],
)
def test_an_unrepaired_record_is_sent_as_the_very_bytes_that_came(data: bytes, kind: str) -> None:
    with endpoint() as received, opened(received.url) as target:
        assert list(target.send([encode(target, data, 2)])) == [Delivered({"status": "200"})]
        assert target.where == received.url.partition("?")[0]
    [(path, headers, body)] = received.requests
    assert (path, body) == ("/in/air?x=1", data)
    wanted = {
        "Content-Type": kind,
        "Authorization": "Bearer s3cret",
        "Idempotency-Key": draft(data, 2).token,
        "Stream-App-Failure": KEY,
        "Stream-App-Attempt": "2",
    }
    assert wanted.items() <= headers.items()


def test_a_repaired_record_is_sent_in_the_form_in_which_it_came() -> None:
    steps = [{"do": "set", "field": "value", "value": 1}]
    with endpoint() as received, opened(received.url) as target:
        plain, enveloped = (
            b'{"event": "reading", "value": -1}',
            samples.as_envelope("reading", {"value": -1}, "e-1"),
        )
        list(target.send([encode(target, plain, steps=steps)]))
        list(target.send([encode(target, enveloped, steps=steps)]))
    assert [json.loads(body) for _, _, body in received.requests] == [
        {"event": "reading", "value": 1},
        {"version": "0", "id": "e-1", "detail-type": "reading", "detail": {"value": 1}},
    ]


def test_a_connection_is_used_again() -> None:
    with endpoint() as received, opened(received.url, threads=1) as target:
        for number in range(5):
            list(target.send([encode(target, b"{}", number + 1)]))
    assert (len(received.requests), received.connections) == (5, 1)


@pytest.mark.parametrize(
    ("status", "headers", "wanted"),
    [
        (201, {}, Delivered({"status": "201"})),
        (204, {}, Delivered({"status": "204"})),
        (302, {"Location": "http://127.0.0.1:1/"}, SenderRejected("HTTP 302: redirects are not followed")),
        (400, {}, Refused("HTTP 400")),
        (401, {}, SenderRejected("HTTP 401")),
        (403, {}, SenderRejected("HTTP 403")),
        (404, {}, Refused("HTTP 404")),
        (409, {"Retry-After": "3"}, Refused("HTTP 409")),
        (429, {"Retry-After": "3"}, Retryable("HTTP 429", doubt=False, after=3.0)),
        (429, {}, Retryable("HTTP 429", doubt=False)),
        (500, {}, Retryable("HTTP 500", doubt=True)),
        (503, {"Retry-After": "0"}, Retryable("HTTP 503", doubt=False, after=0.0)),
        (504, {"Retry-After": "9"}, Retryable("HTTP 504", doubt=True, after=9.0)),
        (0, {}, Retryable("no answer: RemoteDisconnected", doubt=True)),
    ],
)
def test_what_an_answer_means(status: int, headers: dict[str, str], wanted: Answer) -> None:
    with endpoint() as received, opened(received.url) as target:
        received.reply = lambda _number: (status, headers, b"" if status == 204 else b"x" * 100_000)
        assert list(target.send([encode(target, b"{}")])) == [wanted]
        received.reply = lambda _number: (200, {}, b"")
        assert list(target.send([encode(target, b"{}")])) == [Delivered({"status": "200"})]
    assert len(received.requests) == 2


def test_an_endpoint_that_is_not_there_was_sent_nothing() -> None:
    with endpoint() as received:
        gone = received.url
    with opened(gone) as target:
        assert list(target.send([encode(target, b"{}")])) == [
            Retryable("no connection: ConnectionRefusedError", doubt=False)
        ]


def test_an_endpoint_that_says_nothing_leaves_a_doubt() -> None:
    silence = threading.Event()

    def wait(_number: int) -> tuple[int, dict[str, str], bytes]:
        silence.wait(30)
        return 200, {}, b""

    with endpoint() as received, opened(received.url, timeout=0.2) as target:
        received.reply = wait
        assert list(target.send([encode(target, b"{}")])) == [
            Retryable("no answer: TimeoutError", doubt=True)
        ]
        silence.set()


def test_a_connection_that_rested_is_not_trusted() -> None:
    """A server closes what rests; a request on such a connection would be in doubt for nothing."""
    times = [NOW]
    with endpoint() as received, opened(received.url, threads=1, now=lambda: times[0]) as target:
        list(target.send([encode(target, b"{}")]))
        times[0] += timedelta(seconds=60)
        list(target.send([encode(target, b"{}")]))
    assert received.connections == 2


@given(st.integers(0, 800))
def test_a_wait_is_given_in_seconds_or_as_a_date(after: int) -> None:
    assert seconds(str(after), NOW) == float(after)
    assert seconds(format_datetime(NOW + timedelta(seconds=after), usegmt=True), NOW) == float(after)
    assert seconds(format_datetime(NOW - timedelta(seconds=after), usegmt=True), NOW) == 0.0


@given(st.integers(100, 599), st.none() | st.text(max_size=12))
def test_every_answer_means_something(status: int, retry_after: str | None) -> None:
    found = answer(status, retry_after, NOW)
    assert isinstance(found, Delivered) == (200 <= status < 300)
    assert isinstance(found, Retryable) == (status == 429 or status >= 500)
    if isinstance(found, Retryable) and found.after is not None:
        assert 0 <= found.after <= 900


def test_a_secret_is_where_the_plan_says_and_nowhere_else(aws: Callable[[str], Any]) -> None:
    aws("secretsmanager").create_secret(Name="prod/api", SecretString='{"key": " abc "}')
    aws("secretsmanager").create_secret(Name="plain", SecretString="whole")
    assert secret_of(Auth("A", "env", "TOKEN"), {"TOKEN": "xyz"}, aws) == "xyz"
    assert secret_of(Auth("A", "secret", "prod/api", "key"), {}, aws) == "abc"
    assert secret_of(Auth("A", "secret", "plain"), {}, aws) == "whole"


@pytest.mark.parametrize(
    "auth",
    [
        Auth("A", "env", "TOKEN"),
        Auth("A", "env", "EMPTY"),
        Auth("A", "env", "BROKEN"),
        Auth("A", "secret", "api", "nothing"),
        Auth("A", "secret", "api", "number"),
        Auth("A", "secret", "text", "key"),
    ],
)
def test_a_secret_that_cannot_be_used_is_told_and_not_repeated(aws: Callable[[str], Any], auth: Auth) -> None:
    aws("secretsmanager").create_secret(Name="api", SecretString='{"key": "s3cret", "number": 5}')
    aws("secretsmanager").create_secret(Name="text", SecretString="s3cret")
    with pytest.raises(ConfigError) as raised:
        secret_of(auth, {"EMPTY": " ", "BROKEN": "s3cret\nX-Other: y"}, aws)
    assert "s3cret" not in str(raised.value)
    assert raised.value.__context__ is None or "s3cret" not in str(raised.value.__context__)


@pytest.mark.parametrize("kind", ["bus", "stream"])
def test_a_request_to_aws_whose_answer_is_lost_is_made_once_and_leaves_a_doubt(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """boto3 would make it again, and nobody would know that the record may be there twice."""
    file = tmp_path / "test.properties"
    names = "applicationName = air\nstreamName = devices\nregionName = us-east-1\n"
    file.write_text(f"{names}app.bucket = road\napp.bus = air\n")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    with endpoint() as received:
        monkeypatch.setenv("AWS_ENDPOINT_URL", received.url.partition("/in/")[0])
        received.reply = lambda _number: (0, {}, b"")
        target = open_target(
            commands._redrive_context(file, None), destination(kind, bus="air", stream="devices"), {}
        )
        made = target.encode(draft(samples.as_json("reading", {"id": "1", "device": "A", "time": 1})))
        assert isinstance(made, EncodedRecord)
        [found] = target.send([made])
        assert isinstance(found, Retryable)
        assert found.doubt
    assert len(received.requests) == 1
