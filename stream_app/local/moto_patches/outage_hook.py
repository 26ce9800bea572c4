"""Simulates outages for in-process clients (`moto.mock_aws`), as configured by the fault switches.

The server applies the same check in `stream_app.local.server.wsgi`.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qs

from botocore.awsrequest import AWSPreparedRequest
from moto.core.botocore_stubber import BotocoreStubber
from moto.core.common_types import TYPE_RESPONSE

from stream_app.local.moto_patches.fault_switches import FAULT_SWITCHES, Outage
from stream_app.local.moto_patches.patch import replace

_SCOPE = re.compile(r"Credential=[^/]+/\d+/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request")
_process = BotocoreStubber.process_request


class Call(NamedTuple):
    """The target of a request. `action` is the operation's name, or the HTTP method for S3."""

    service: str
    action: str
    is_form: bool


def parse_call(authorization: str, target: str, form: str, method: str) -> Call | None:
    """Parse a call from its headers and form body. Returns None if it has no AWS Signature Version 4 header."""
    scope = _SCOPE.search(authorization)
    if scope is None:
        return None
    action = target.rpartition(".")[2] or parse_qs(form).get("Action", [method])[0]
    return Call(scope["service"].lower(), action, bool(form))


def outage_response(call: Call | None) -> tuple[int, dict[str, str], str] | None:
    """Return status, headers and body of the error response if an outage applies to the call, else None.

    Decrements the outage's remaining calls.
    """
    outage = FAULT_SWITCHES.outage(call.service, call.action) if call is not None else None
    return _error_response(outage, call) if outage is not None and call is not None else None


def _error_response(outage: Outage, call: Call) -> tuple[int, dict[str, str], str]:
    """Build the error in the service's wire format (XML or JSON)."""
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
    """Answer with an error if an outage applies to the request, else pass it on to moto."""
    header = request.headers.get
    is_form = "x-www-form-urlencoded" in _text(header("Content-Type"))
    body = request.body if is_form and isinstance(request.body, str | bytes) else ""
    call = parse_call(
        _text(header("Authorization")), _text(header("X-Amz-Target")), _text(body), request.method or "GET"
    )
    return outage_response(call) or _process(self, request)


def apply() -> None:
    """Install the patch."""
    replace(BotocoreStubber, "process_request", process_request)
