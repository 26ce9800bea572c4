"""What KCL starts for a shard where there is a shard host: hands its pipes over, then waits for the exit code.

Run as a script (`python -I -S client.py COMMAND...`), some 9 ms: it imports as little as it can, nothing of
this package. Without a host that takes the shard it becomes COMMAND, the consumer that needs none.

The host greets first. Until then nothing was handed over, so that going alone is safe; from then on the shard is
the host's, and there are never two consumers on one pipe.
"""

from __future__ import annotations

import _socket
import os
import sys
from collections.abc import Mapping, Sequence

HOST = "STREAM_APP_HOST"
"""Names the host's socket."""
GREETING = b"stream-app shard host 1\n"
_PROPERTIES = "STREAM_APP_PROPERTIES"
_PATIENCE = 30.0  # seconds for a host that is just being started, on a machine that is busy
# A shell waits in a tenth of the memory. As every child it leaves signals to the launcher of the daemon.
_WAIT = "trap '' INT TERM; read -r code; exit ${code:-1}"


def main(alone: Sequence[str]) -> None:
    """Hand over and wait, or become `alone`."""
    connection = hand_over(os.environ)
    if connection is None:
        os.execvp(alone[0], list(alone))  # noqa: S606
    _wait(connection)


def hand_over(environ: Mapping[str, str]) -> _socket.socket | None:
    """Give stdin, stdout and stderr to the host; the connection that will tell the exit code, or None."""
    path = environ.get(HOST, "")
    # A host serves the settings beside which its socket lies, and no others.
    if not path or os.path.dirname(path) != os.path.dirname(environ.get(_PROPERTIES, "")):  # noqa: PTH120
        return None
    _open_standard_files()
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    connection.settimeout(_PATIENCE)
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
    """Have those that are closed be /dev/null: else the connection itself would be one of them."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def _wait(connection: _socket.socket) -> None:
    """Exit with the code that the host tells, 1 when it tells none. The pipes are the consumer's alone now."""
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
