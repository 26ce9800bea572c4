"""The embedded AWS as a WSGI application: own paths, outages, the short way, and then moto.

moto's own server is a Flask application that serves HTTP/1.1 only, and asks for every request which host it would
have gone to. Here the service is read from the request's signature, and moto's handlers are called as its in-process
mock calls them.
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
from moto.core.request import Request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from stream_app.errors import ConfigError
from stream_app.local import moto_patches as corrections
from stream_app.local.moto_patches.fault_switches import FAULT_SWITCHES
from stream_app.local.moto_patches.outage_hook import Call, outage_response, parse_call
from stream_app.local.server import faults
from stream_app.local.server.kinesis_fast_path import fast

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

OWN = "/stream-app/"
HEALTH = f"{OWN}health"
FAULTS = f"{OWN}faults"
_MOTO_API = "moto_api"
_REGION = "us-east-1"
_CREDENTIAL_IN_QUERY = re.compile(r"[^/]+/\d+/[^/]+/(?P<service>[^/]+)/aws4_request")
# What RFC 3986 lets stand in a path, and the slash.
_PATH_SAFE = "/-._~!$&'()*+,;=:@"

_log = logging.getLogger(__name__)
Handler = Callable[[Request, str, dict[str, str]], Any]


class ServerRequest(Request):
    """A request to a real server, which writes the Date header itself."""

    from_wsgi_server = True


def application() -> WSGIApplication:
    """The whole: corrections in place, own paths in front."""
    corrections.apply()
    return whole(own_paths(outages(fast(moto))))


def whole(inner: WSGIApplication) -> WSGIApplication:
    """`inner`, for requests that came whole. Of one whose sender died on the way AWS keeps nothing, so neither here.

    granian hands such a request on without its body, and moto would store an empty object.
    """

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # Before any lock is taken: a slow sender must not hold up the others.
        body = environ["wsgi.input"].read()
        if len(body) < int(environ.get("CONTENT_LENGTH") or 0):
            told = b"<Error><Code>IncompleteBody</Code></Error>"
            return _plain(400, told, "application/xml")(environ, start_response)
        environ["wsgi.input"] = io.BytesIO(body)
        return inner(environ, start_response)

    return answer


def own_paths(inner: WSGIApplication) -> WSGIApplication:
    """`/stream-app/health` and `/stream-app/faults` (GET, POST, DELETE), which no AWS service has."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path, method = environ.get("PATH_INFO", ""), environ.get("REQUEST_METHOD", "GET")
        if not path.startswith(OWN):
            return inner(environ, start_response)
        status = 200
        said: dict[str, Any] = {}
        try:
            if path == HEALTH:
                said = {"pid": os.getpid()}
            elif path == FAULTS:
                said = _set_faults(method, environ["wsgi.input"].read())
            else:
                status, said = 404, {"error": f"{OWN} has health and faults"}
        except ConfigError as error:
            status, said = 400, {"error": str(error)}
        return _plain(status, msgspec.json.encode(said), "application/json")(environ, start_response)

    return answer


def _set_faults(method: str, body: bytes) -> dict[str, Any]:
    trimmed = 0
    if method == "POST":
        trimmed = sum(faults.inject(fault) for fault in faults.decode(body))
    elif method == "DELETE":
        faults.clear()
    return {**faults.current(), "trimmed": trimmed}


def outages(inner: WSGIApplication) -> WSGIApplication:
    """`inner`, where no fault switch says that the service is out."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        form = ""
        if FAULT_SWITCHES.outages and "x-www-form-urlencoded" in environ.get("CONTENT_TYPE", ""):
            form = environ["wsgi.input"].read().decode(errors="replace")
            environ["wsgi.input"].seek(0)
        refused = outage_response(_call(environ, form)) if FAULT_SWITCHES.outages else None
        if refused is None:
            return inner(environ, start_response)
        status, headers, body = refused
        return Response(body, status, headers)(environ, start_response)

    return answer


def moto(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Hand the request to the handler of its service; what goes wrong inside is a 500 without the payload."""
    # moto reads the path as it came on the wire; WSGI gives it decoded.
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
    """moto's handler of a path of a service. Raises NotImplementedError when it has none."""
    for pattern, handler in _routes(service):
        if pattern.match(path):
            return handler
    raise NotImplementedError(f"{service} has nothing at this path")


@lru_cache(maxsize=256)
def _routes(service: str) -> list[tuple[re.Pattern[str], Handler]]:
    host = f"http://{service}.{_REGION}.amazonaws.com"
    names = [name for name, pattern in backend_url_patterns if pattern.match(host)]
    name: Any = service if service == _MOTO_API else next(iter(names), None)
    if name is None:
        raise NotImplementedError(f"moto has no service {service}")
    found: Any = backends.get_backend(name)
    regions = found[faults.ACCOUNT] if isinstance(found, BackendDict) else found
    # Only its paths are asked for, which are the same in every region; global services have "aws" or "global".
    backend = next(regions[region] for region in (_REGION, "aws", "global") if region in regions)
    return [(re.compile(path), handler) for path, handler in backend.url_paths.items()]


def _service(environ: WSGIEnvironment, request: Request) -> str:
    """Whom the request was signed for; an unsigned one is for S3, as in moto's server."""
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
