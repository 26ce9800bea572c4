"""The embedded AWS as a WSGI application: admin paths, simulated outages, the Kinesis fast path, and moto.

moto's own server is a Flask application that serves HTTP/1.1 only and derives the service from the host of each
request. Here the service is taken from the request's signature, and moto's handlers are called as in its in-process
mock.
"""

from __future__ import annotations

import io
import logging
import os
import re
import traceback
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote

import msgspec
from moto import backends
from moto.backend_index import backend_url_patterns
from moto.core.base_backend import BackendDict
from moto.core.common_types import TYPE_RESPONSE
from moto.core.request import Request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from stream_app.errors import ConfigError
from stream_app.local import moto_patches
from stream_app.local.moto_patches.fault_switches import FAULT_SWITCHES
from stream_app.local.moto_patches.outage_hook import Call, outage_response, parse_call
from stream_app.local.server import faults
from stream_app.local.server.kinesis_fast_path import kinesis_fast_path

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ADMIN_PREFIX = "/stream-app/"
HEALTH = f"{ADMIN_PREFIX}health"
FAULTS = f"{ADMIN_PREFIX}faults"
_MOTO_API = "moto_api"
_REGION = "us-east-1"
_CREDENTIAL_IN_QUERY = re.compile(r"[^/]+/\d+/[^/]+/(?P<service>[^/]+)/aws4_request")
# Characters that RFC 3986 allows unescaped in a path segment, and the slash.
_PATH_SAFE = "/-._~!$&'()*+,;=:@"

_log = logging.getLogger(__name__)
# moto declares get_backend for literal service names only; here the name is known at run time.
RuntimeName = Any
Handler = Callable[[Request, str, dict[str, str]], TYPE_RESPONSE]


class ServerRequest(Request):
    """A request to a WSGI server, for which moto sets no Date header."""

    from_wsgi_server = True


def application() -> WSGIApplication:
    """Apply the moto patches and return the application with all its layers."""
    moto_patches.apply()
    return reject_incomplete(admin_paths(simulate_outages(kinesis_fast_path(moto_application))))


def reject_incomplete(inner: WSGIApplication) -> WSGIApplication:
    """Wrap `inner`: reject requests whose body is shorter than Content-Length, as AWS does.

    granian passes on a request without its body if the client disconnects, and moto would store an empty object.
    """

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # Read before any lock is acquired, so that a slow client does not block others.
        body = environ["wsgi.input"].read()
        if len(body) < int(environ.get("CONTENT_LENGTH") or 0):
            message = b"<Error><Code>IncompleteBody</Code></Error>"
            return _plain(400, message, "application/xml")(environ, start_response)
        environ["wsgi.input"] = io.BytesIO(body)
        return inner(environ, start_response)

    return answer


def admin_paths(inner: WSGIApplication) -> WSGIApplication:
    """Wrap `inner`: serve `/stream-app/health` and `/stream-app/faults` (GET, POST, DELETE)."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path, method = environ.get("PATH_INFO", ""), environ.get("REQUEST_METHOD", "GET")
        if not path.startswith(ADMIN_PREFIX):
            return inner(environ, start_response)
        status = 200
        content: dict[str, object] = {}
        try:
            if path == HEALTH:
                content = {"pid": os.getpid()}
            elif path == FAULTS:
                content = _set_faults(method, environ["wsgi.input"].read())
            else:
                status, content = 404, {"error": f"unknown path (expected {HEALTH} or {FAULTS})"}
        except ConfigError as error:
            status, content = 400, {"error": str(error)}
        return _plain(status, msgspec.json.encode(content), "application/json")(environ, start_response)

    return answer


def _set_faults(method: str, body: bytes) -> dict[str, object]:
    trimmed = 0
    if method == "POST":
        trimmed = sum(faults.inject(fault) for fault in faults.decode(body))
    elif method == "DELETE":
        faults.clear()
    return {**faults.current(), "trimmed": trimmed}


def simulate_outages(inner: WSGIApplication) -> WSGIApplication:
    """Wrap `inner`: fail the requests to which an outage set by a fault switch applies."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        form = ""
        if FAULT_SWITCHES.outages and "x-www-form-urlencoded" in environ.get("CONTENT_TYPE", ""):
            form = environ["wsgi.input"].read().decode(errors="replace")
            environ["wsgi.input"].seek(0)
        failure = outage_response(_call(environ, form)) if FAULT_SWITCHES.outages else None
        if failure is None:
            return inner(environ, start_response)
        status, headers, body = failure
        return Response(body, status, headers)(environ, start_response)

    return answer


def moto_application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Call moto's handler for the request. Unexpected errors are answered with status 500 without the payload."""
    # moto expects the undecoded path; WSGI passes it decoded.
    environ["RAW_URI"] = quote(environ["PATH_INFO"].encode("latin-1"), safe=_PATH_SAFE)
    request = ServerRequest(environ)
    try:
        handler = handler_for(_service(environ, request), request.raw_path)
        status, headers, body = handler(request, request.raw_url, dict(request.headers))
    except HTTPException as error:
        return error.get_response(environ)(environ, start_response)
    except NotImplementedError as error:
        return _plain(501, _failure("NotImplemented", str(error)), "application/json")(
            environ, start_response
        )
    except Exception as error:
        where = "".join(traceback.format_tb(error.__traceback__))
        _log.error(
            "%s in %s %s\n%s", type(error).__name__, request.method, environ.get("HTTP_X_AMZ_TARGET"), where
        )
        return _plain(500, _failure("InternalFailure", ""), "application/json")(environ, start_response)
    response = Response(body, status, headers)
    if request.method == "HEAD" and "content-length" in headers:
        response.headers["Content-Length"] = headers["content-length"]
    return response(environ, start_response)


def handler_for(service: str, path: str) -> Handler:
    """Return moto's handler for a path of a service. Raises NotImplementedError if moto does not support it."""
    for pattern, handler in _routes(service):
        if pattern.match(path):
            return handler
    raise NotImplementedError(f"moto does not support this path of {service}")


@lru_cache(maxsize=256)
def _routes(service: str) -> list[tuple[re.Pattern[str], Handler]]:
    host = f"http://{service}.{_REGION}.amazonaws.com"
    names = [name for name, pattern in backend_url_patterns if pattern.match(host)]
    name: RuntimeName = service if service == _MOTO_API else next(iter(names), None)
    if name is None:
        raise NotImplementedError(f"moto does not support the service {service}")
    found = backends.get_backend(name)
    regions = found[faults.ACCOUNT] if isinstance(found, BackendDict) else found
    # The paths are the same in every region. Global services have the region "aws" or "global".
    backend = next(regions[region] for region in (_REGION, "aws", "global") if region in regions)
    return [(re.compile(path), handler) for path, handler in backend.url_paths.items()]


def _service(environ: WSGIEnvironment, request: Request) -> str:
    """Return the service from the request's signature. An unsigned request is for S3, as in moto's server."""
    if request.raw_path.startswith("/moto-api"):
        return _MOTO_API
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if target.startswith("DynamoDBStreams"):
        return "streams.dynamodb"
    call = _call(environ)
    if call is not None:
        return call.service
    in_query = _CREDENTIAL_IN_QUERY.match(
        parse_qs(environ.get("QUERY_STRING", "")).get("X-Amz-Credential", [""])[0]
    )
    return in_query["service"] if in_query is not None else "s3"


def _call(environ: WSGIEnvironment, form: str = "") -> Call | None:
    return parse_call(
        environ.get("HTTP_AUTHORIZATION", ""),
        environ.get("HTTP_X_AMZ_TARGET", ""),
        form,
        environ.get("REQUEST_METHOD", "GET"),
    )


def _failure(code: str, message: str) -> bytes:
    return msgspec.json.encode({"__type": code, "message": message})


def _plain(status: int, body: bytes, content_type: str) -> Response:
    return Response(body, status, content_type=content_type)
