"""The one door of in-process clients (`moto.mock_aws`): an outage that a fault switch asks for is met here.

The server has its own door (`stream_app.local.server.wsgi`), which asks the same question.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qs

from botocore.awsrequest import AWSPreparedRequest
from moto.core.botocore_stubber import BotocoreStubber
from moto.core.common_types import TYPE_RESPONSE

from stream_app.local.moto_patches.patch import replace
from stream_app.local.moto_patches.switches import SWITCHES, Outage

_SCOPE = re.compile(r"Credential=[^/]+/\d+/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request")
_process = BotocoreStubber.process_request


class Call(NamedTuple):
    """Whom a request is for. The action is the operation's name, or the HTTP method where the protocol has none."""

    service: str
    action: str
    is_form: bool


def call_of(authorization: str, target: str, form: str, method: str) -> Call | None:
    """Read a call from its headers and form body; None when it is not signed as AWS's clients sign."""
    scope = _SCOPE.search(authorization)
    if scope is None:
        return None
    action = target.rpartition(".")[2] or parse_qs(form).get("Action", [method])[0]
    return Call(scope["service"].lower(), action, bool(form))


def met(call: Call | None) -> tuple[int, dict[str, str], str] | None:
    """Status, headers and body of the answer when the call falls into an outage, which is used up by one."""
    outage = SWITCHES.outage(call.service, call.action) if call is not None else None
    return _refusal(outage, call) if outage is not None and call is not None else None


def _refusal(outage: Outage, call: Call) -> tuple[int, dict[str, str], str]:
    """In the form that the clients of the service read."""
    message = "Please try again."
    if call.service == "s3" or call.is_form:
        body = f"<Error><Code>{outage.code}</Code><Message>{message}</Message></Error>"
        body = f"<ErrorResponse>{body}</ErrorResponse>" if call.is_form else body
        return outage.status, {"Content-Type": "application/xml"}, body
    headers = {"Content-Type": "application/x-amz-json-1.1", "x-amzn-ErrorType": outage.code}
    return outage.status, headers, f'{{"__type":"{outage.code}","message":"{message}"}}'


def _text(value: str | bytes | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""


def process_request(self: BotocoreStubber, request: AWSPreparedRequest) -> TYPE_RESPONSE | None:
    """moto's handling of a request, unless its service is out."""
    header = request.headers.get
    is_form = "x-www-form-urlencoded" in _text(header("Content-Type"))
    body = request.body if is_form and isinstance(request.body, str | bytes) else ""
    call = call_of(
        _text(header("Authorization")), _text(header("X-Amz-Target")), _text(body), request.method or "GET"
    )
    return met(call) or _process(self, request)


def apply() -> None:
    """Put the correction in place."""
    replace(BotocoreStubber, "process_request", process_request)
