"""A short way for the three calls of Kinesis that carry the records.

The answer is made by the very functions that moto's own way ends in; what is passed over is moto's parsing and
serialising of a request, which costs more than the work.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
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


def fast(inner: WSGIApplication) -> WSGIApplication:
    """`inner`, with the short way in front for the requests that it is for."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        call = _CALLS.get(environ.get("HTTP_X_AMZ_TARGET", ""))
        signed = _CREDENTIAL.match(environ.get("HTTP_AUTHORIZATION", "")) if call is not None else None
        if call is None or signed is None or environ.get("CONTENT_TYPE") != JSON_TYPE:
            return inner(environ, start_response)
        body = environ["wsgi.input"].read()
        backend = kinesis_backends[_account(environ, signed[1])][signed[2]]
        try:
            answered = call(backend, body)
        except JsonRESTError as error:
            refused = error.description.encode()
            kind = ("X-Amzn-ErrorType", error.relative_error_type)
            start_response(f"{error.code} Bad Request", [kind, *_headers(refused, error.content_type)])
            return [refused]
        start_response("200 OK", _headers(answered, JSON_TYPE))
        return [answered]

    return answer


def _account(environ: dict[str, Any], access_key: str) -> str:
    """The account as moto finds it."""
    told = os.environ.get("MOTO_ACCOUNT_ID") or environ.get("HTTP_X_MOTO_ACCOUNT_ID")
    return told or get_account_id_from(access_key)


def _headers(body: bytes, kind: str) -> list[tuple[str, str]]:
    return [
        ("content-type", kind),
        ("content-length", str(len(body))),
        ("server", "amazon.com"),
        ("x-amzn-requestid", str(uuid4())),
    ]
