"""The embedded AWS as a program: `python -m stream_app.local.server [--port N] [--ready-file F]`.

One port of 127.0.0.1 speaks HTTP/1.1 (boto3, KCL's DynamoDB client) and HTTP/2 in the clear (KCL's Kinesis client).
When it answers, it says where: one line of JSON on stdout and, if asked for, in the ready-file. It ends on SIGTERM
and SIGINT, and when the process that started it ends; its memory, and so the whole AWS, ends with it.

granian serves from a worker process of its own, which holds moto's memory: the corrections are applied there, and the
worker dies with the main process even when that is killed.
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
# A long poll of SQS holds a thread for up to 20 s; there must be some left for the others.
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
    """A socket that holds `port` (0: a free one) until the worker listens there. Raises ConfigError if it is taken.

    granian's listener shares its port with whoever asks to (SO_REUSEPORT), so that a second server on the same port
    would start and get every other connection: the first bind, which does not share, finds that out.
    """
    with socket.socket() as alone:
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            alone.bind((HOST, port))
        except (OSError, OverflowError) as error:
            problem = Problem(f"port {port} cannot be had: {error}", "give another one, or 0 for any")
            raise ConfigError([problem]) from error
        free = int(alone.getsockname()[1])
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind((HOST, free))
    return held


def end_with_parent(parent: int) -> None:
    """SIGTERM to this process when `parent` is no longer its parent.

    Linux would tell us when the *thread* that started us ends, which need not be the end of the process: so what
    comes, by then or by the clock (which the worker does not inherit), is only a reason to look.
    """

    def look(*_: object) -> None:
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGALRM, look)
    _signal_on_parents_death(signal.SIGALRM)
    signal.setitimer(signal.ITIMER_REAL, _PARENT_CHECK_S, _PARENT_CHECK_S)


def worker(main: int, port: int, ready_file: Path | None) -> WSGIApplication:
    """The application, in granian's worker: it is killed when the main process ends in whatever way."""
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
    """Say where the server is, once it answers."""
    while not answers(port):
        time.sleep(_READY_CHECK_S)
    line = json.dumps({"endpoint": f"http://{HOST}:{port}", "port": port, "pid": main}) + "\n"
    if ready_file is not None:
        # Under another name first: who waits for the file must not read half of it.
        part = ready_file.with_name(f"{ready_file.name}.part")
        part.write_text(line, encoding="utf-8")
        part.replace(ready_file)
    sys.stdout.write(line)
    sys.stdout.flush()


def answers(port: int) -> bool:
    """Whether an embedded AWS answers on this port."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/stream-app/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def serve(port: int, ready_file: Path | None, parent: int) -> None:
    """Serve until told to stop. Raises ConfigError when the port is taken, SystemExit when the worker fails."""
    held = reserve(port)
    actual = int(held.getsockname()[1])
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
        # On its way out Python forgets our handler, and the next look at the parent would be the end by a signal.
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        held.close()


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 when told to stop, 1 when it could not go on, 2 when it could not be started like this."""
    parser = argparse.ArgumentParser(
        prog="python -m stream_app.local.server", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--port", type=int, default=0, help="0, the default, is any free one")
    parser.add_argument("--ready-file", type=Path, help="is written when the server answers")
    parser.add_argument(
        "--parent", type=int, default=os.getppid(), help="end when this process ends; 0: never"
    )
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
