"""Run the embedded AWS: `python -m stream_app.local.server [--port N] [--ready-file F]`.

One port of 127.0.0.1 serves HTTP/1.1 (boto3, KCL's DynamoDB client) and cleartext HTTP/2 (KCL's Kinesis client). Once
it responds, the server writes its endpoint as a line of JSON to stdout and, if specified, to the ready file. It stops
on SIGTERM, SIGINT and the end of the process that started it. All state is in memory and is lost when it stops.

granian serves requests in a separate worker process. The worker applies the moto patches and holds moto's state, and
is killed whenever the main process ends, even if that was killed.
"""

from __future__ import annotations

import argparse
import ctypes
import http.client
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server import Server

from stream_app.errors import ConfigError, Problem

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

HOST = "127.0.0.1"
# An SQS long poll occupies a thread for up to 20 s.
THREADS = 32
_STOP_S = 3
_PARENT_CHECK_S = 1.0
_READY_CHECK_S = 0.02
_PR_SET_PDEATHSIG = 1
_TO_STDERR = {
    "console": {"formatter": "generic", "class": "logging.StreamHandler", "stream": "ext://sys.stderr"},
    "access": {"formatter": "access", "class": "logging.StreamHandler", "stream": "ext://sys.stderr"},
}


def reserve(port: int) -> socket.socket:
    """Return a socket that reserves `port` (0: any free port) until the worker listens on it.

    Raises ConfigError if the port is in use. granian listens with SO_REUSEPORT, so a second server on the same port
    would start and receive every other connection; the first bind here, without SO_REUSEPORT, detects that.
    """
    with socket.socket() as exclusive:
        exclusive.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            exclusive.bind((HOST, port))
        except (OSError, OverflowError) as error:
            problem = Problem(f"port {port} is not available: {error}", "use another port, or 0 for any")
            raise ConfigError([problem]) from error
        free = int(exclusive.getsockname()[1])
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind((HOST, free))
    return reserved


def end_with_parent(parent: int) -> None:
    """Send SIGTERM to this process when `parent` is no longer its parent.

    Linux sends the parent-death signal when the *thread* that started us ends, although its process may continue.
    That signal, and a timer (which the worker does not inherit), therefore only trigger a check.
    """

    def check(*_: object) -> None:
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGALRM, check)
    _signal_on_parents_death(signal.SIGALRM)
    signal.setitimer(signal.ITIMER_REAL, _PARENT_CHECK_S, _PARENT_CHECK_S)


def worker(main: int, port: int, ready_file: Path | None) -> WSGIApplication:
    """Build the application in granian's worker, which is killed when the main process ends for any reason."""
    _signal_on_parents_death(signal.SIGKILL)
    if os.getppid() != main:
        raise SystemExit(1)
    from stream_app.local.server.wsgi import application

    built = application()
    threading.Thread(target=_announce, args=(main, port, ready_file), daemon=True).start()
    return built


def _signal_on_parents_death(number: signal.Signals) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))


def _announce(main: int, port: int, ready_file: Path | None) -> None:
    """Publish the endpoint once the server responds."""
    while not is_healthy(port):
        time.sleep(_READY_CHECK_S)
    line = json.dumps({"endpoint": f"http://{HOST}:{port}", "port": port, "pid": main}) + "\n"
    if ready_file is not None:
        # Renamed when complete, so that no reader sees a partial file.
        part = ready_file.with_name(f"{ready_file.name}.part")
        part.write_text(line, encoding="utf-8")
        part.replace(ready_file)
    sys.stdout.write(line)
    sys.stdout.flush()


def is_healthy(port: int) -> bool:
    """Return whether an embedded AWS responds on this port."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/stream-app/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def serve(port: int, ready_file: Path | None, parent: int) -> None:
    """Serve until stopped. Raises ConfigError if the port is in use, SystemExit if the worker fails."""
    reserved = reserve(port)
    actual = int(reserved.getsockname()[1])
    if parent > 1:
        end_with_parent(parent)
    server = Server(
        "stream_app.local.server.wsgi:application",
        address=HOST,
        port=actual,
        interface=Interfaces.WSGI,
        http=HTTPModes.auto,
        workers=1,
        blocking_threads=THREADS,
        websockets=False,
        log_level=LogLevels.error,
        log_dictconfig={"handlers": _TO_STDERR},
        workers_kill_timeout=_STOP_S,
    )
    try:
        server.serve(target_loader=partial(worker, os.getpid(), actual, ready_file), wrap_loader=False)
    finally:
        # Python resets signal handlers at exit, after which SIGALRM would terminate the process.
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        reserved.close()


def main(arguments: Sequence[str]) -> int:
    """Run the server. Exit codes: 0 stopped, 1 failed, 2 invalid configuration."""
    parser = argparse.ArgumentParser(
        prog="python -m stream_app.local.server", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: 0, any free port)")
    parser.add_argument("--ready-file", type=Path, help="file to write when the server responds")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="process ID to end with; 0 for none")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    try:
        serve(given.port, given.ready_file, given.parent)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
