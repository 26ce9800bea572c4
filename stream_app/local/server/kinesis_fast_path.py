"""A fast path for the three Kinesis data operations: GetRecords, PutRecord and PutRecords.

It calls the same functions as moto's request handling but bypasses moto's parsing and serialization, which cost more
than the operation itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from uuid import uuid4

from moto.core.exceptions import JsonRESTError
from moto.iam.models import get_account_id_from
from moto.kinesis.models import KinesisBackend, kinesis_backends

from stream_app.local.moto_patches.kinesis.reading import JSON_TYPE, get_records
from stream_app.local.moto_patches.kinesis.writing import put_record, put_records

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_CALLS: dict[str, Callable[[KinesisBackend, bytes], bytes]] = {
    "Kinesis_20131202.GetRecords": get_records,
    "Kinesis_20131202.PutRecord": put_record,
    "Kinesis_20131202.PutRecords": put_records,
}
_CREDENTIAL = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/]+)/\d+/([^/]+)/kinesis/")


def kinesis_fast_path(inner: WSGIApplication) -> WSGIApplication:
    """Wrap `inner`: answer signed JSON requests for the three operations directly, and pass on all others."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        call = _CALLS.get(environ.get("HTTP_X_AMZ_TARGET", ""))
        signed = _CREDENTIAL.match(environ.get("HTTP_AUTHORIZATION", "")) if call is not None else None
        if call is None or signed is None or environ.get("CONTENT_TYPE") != JSON_TYPE:
            return inner(environ, start_response)
        body = environ["wsgi.input"].read()
        backend = kinesis_backends[_account(environ, signed[1])][signed[2]]
        try:
            response = call(backend, body)
        except JsonRESTError as error:
            message = error.description.encode()
            error_type = ("X-Amzn-ErrorType", error.relative_error_type)
            start_response(f"{error.code} Bad Request", [error_type, *_headers(message, error.content_type)])
            return [message]
        start_response("200 OK", _headers(response, JSON_TYPE))
        return [response]

    return answer


def _account(environ: WSGIEnvironment, access_key: str) -> str:
    """Determine the account in the same way as moto."""
    account = os.environ.get("MOTO_ACCOUNT_ID") or environ.get("HTTP_X_MOTO_ACCOUNT_ID")
    return account or get_account_id_from(access_key)


def _headers(body: bytes, kind: str) -> list[tuple[str, str]]:
    return [
        ("content-type", kind),
        ("content-length", str(len(body))),
        ("server", "amazon.com"),
        ("x-amzn-requestid", str(uuid4())),
    ]
