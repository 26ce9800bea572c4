"""The client of the fork server, which KCL starts for a shard: passes its pipes on and waits for the exit code.

Run as a script (`python -I -S client.py COMMAND...`) in about 9 ms: it imports as little as possible and nothing of
this package. If no fork server accepts the shard, it executes COMMAND, which is the consumer without a fork server.

The fork server sends a greeting first. Until then nothing was passed on, so starting without it is safe; from then on
the shard belongs to the fork server. There are never two consumers on one pipe.
"""

from __future__ import annotations

import _socket
import os
import sys
from collections.abc import Mapping, Sequence

HOST = "STREAM_APP_HOST"
"""The environment variable with the path of the socket."""
GREETING = b"stream-app shard host 1\n"
_PROPERTIES = "STREAM_APP_PROPERTIES"
_TIMEOUT = 30.0  # seconds; a fork server may be starting on a busy host
# A shell waits with a tenth of the memory of Python. Signals are handled by the launcher of the daemon.
_WAIT = "trap '' INT TERM; read -r code; exit ${code:-1}"


def main(alone: Sequence[str]) -> None:
    """Pass the shard to the fork server and wait, or execute `alone`."""
    connection = pass_pipes(os.environ)
    if connection is None:
        os.execvp(alone[0], list(alone))  # noqa: S606
    _wait(connection)


def pass_pipes(environ: Mapping[str, str]) -> _socket.socket | None:
    """Pass stdin, stdout and stderr to the fork server; returns the connection for the exit code, or None."""
    path = environ.get(HOST, "")
    # A fork server serves only the properties file in the folder of its socket.
    if not path or os.path.dirname(path) != os.path.dirname(environ.get(_PROPERTIES, "")):  # noqa: PTH120
        return None
    _open_standard_files()
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    connection.settimeout(_TIMEOUT)
    pipes = b"".join(fd.to_bytes(4, sys.byteorder) for fd in (0, 1, 2))
    try:
        connection.connect(path)
        if connection.recv(len(GREETING)) == GREETING:
            connection.sendmsg([b"\n"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pipes)])
            return connection
    except OSError:
        pass
    connection.close()
    return None


def _open_standard_files() -> None:
    """Open closed standard files as /dev/null, so that the connection does not take their descriptors."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def _wait(connection: _socket.socket) -> None:
    """Exit with the code that the fork server sends, 1 without one. The pipes belong to the consumer now."""
    connection.setblocking(True)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(connection.fileno(), 0)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    try:
        os.execv("/bin/sh", ["sh", "-c", _WAIT])  # noqa: S606
    except OSError:
        import signal

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        os._exit(int(os.read(0, 16) or b"1"))


if __name__ == "__main__":
    main(sys.argv[1:])
