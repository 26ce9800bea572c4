"""The loop of the fork server: one fork for each client that passes its pipes.

It is single-threaded and never blocks. Each consumer is a separate process, so a crash or hang affects one shard
only. A consumer never outlives its client: the fork server kills it when the connection of the client closes, and if
the fork server has ended, Linux does.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress

from stream_app.forkserver.client import GREETING

CANNOT_FORK = 3
"""The exit code of the fork server if what it loaded must not be forked."""

Warn = Callable[..., object]
_PIPES = 3


class ForkServer:
    """Serves clients on a listening socket until SIGTERM.

    `work` runs a consumer in a fork and returns its exit code; `warn` writes a log line.
    """

    def __init__(self, listener: socket.socket, work: Callable[[], int], warn: Warn) -> None:
        self._listener, self._work, self._warn = listener, work, warn
        self._selector = selectors.DefaultSelector()
        self._waiting: set[socket.socket] = set()
        self._workers: dict[int, socket.socket] = {}
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stopped = False

    def run(self) -> None:
        """Serve clients; when it returns, all consumers have ended."""
        self._listener.setblocking(False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, self._signalled)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        while not (self._stopped and not self._workers):
            for key, _ in self._selector.select():
                self._ready(key.fileobj)

    def _signalled(self, number: int, _frame: object) -> None:
        self._stopped |= number == signal.SIGTERM

    def _ready(self, source: object) -> None:
        if source is self._listener:
            self._greet()
        elif isinstance(source, socket.socket) and source in self._waiting:
            self._begin(source)
        elif source == self._woken:
            with suppress(BlockingIOError):
                os.read(self._woken, 512)
            self._reap()
            if self._stopped:
                for pid in self._workers:
                    _kill(pid)
        elif isinstance(source, socket.socket):  # clients send nothing after their pipes: this one has ended
            with suppress(KeyError):  # already closed, with its consumer
                self._selector.unregister(source)
            for pid, connection in self._workers.items():
                if connection is source:
                    _kill(pid)

    def _greet(self) -> None:
        with suppress(BlockingIOError):
            connection, _ = self._listener.accept()
            self._waiting.add(connection)
            self._selector.register(connection, selectors.EVENT_READ)
            with suppress(OSError):  # the client has ended, which the end of file will show
                connection.sendall(GREETING)

    def _begin(self, connection: socket.socket) -> None:
        self._waiting.discard(connection)
        try:
            pipes = socket.recv_fds(connection, 16, _PIPES)[1]
        except OSError:
            pipes = []
        try:
            if len(pipes) == _PIPES:
                self._fork(connection, pipes)
            else:
                self._close(connection)
        finally:
            for pipe in pipes:
                os.close(pipe)

    def _fork(self, connection: socket.socket, pipes: list[int]) -> None:
        host = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:  # out of memory or processes: this shard fails, not the fork server
            self._warn("no fork", error=str(error))
            self._close(connection)
            return
        if pid == 0:
            self._become(connection, pipes, host)
        with suppress(PermissionError, ProcessLookupError):  # set by the fork itself, or the fork has ended
            os.setpgid(pid, pid)
        self._workers[pid] = connection

    def _become(self, connection: socket.socket, pipes: list[int], host: int) -> None:
        """Run the consumer in the fork, which keeps only its own connection; never returns."""
        code = 1
        try:
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._selector.close()
            for fd in (self._woken, self._wake):
                os.close(fd)
            for other in (self._listener, *self._waiting, *self._workers.values()):
                other.close()
            for at, pipe in enumerate(pipes):
                os.dup2(pipe, at)
                os.close(pipe)
            if _follow_parent(connection):
                code = self._work()
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(OSError, ValueError):
                sys.stderr.flush()
            if os.getppid() != host:
                _send_code(connection, code)
            os._exit(code)

    def _reap(self) -> None:
        """Send the exit codes of consumers that have ended to their clients."""
        with suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                _kill(ended.si_pid)  # and its child processes, while its group id cannot be reused
                _, status = os.waitpid(ended.si_pid, 0)
                connection = self._workers.pop(ended.si_pid)
                code = os.waitstatus_to_exitcode(status)
                if code < 0:
                    self._warn("shard process killed", pid=ended.si_pid, signal=-code)
                _send_code(connection, code if code >= 0 else 128 - code)
                self._close(connection)

    def _close(self, connection: socket.socket) -> None:
        with suppress(KeyError):
            self._selector.unregister(connection)
        connection.close()


def _send_code(connection: socket.socket, code: int) -> None:
    with suppress(OSError):  # the client was killed
        connection.send(b"%d\n" % code)


def _kill(pid: int) -> None:
    """Kill a consumer and its child processes. It is not reaped yet, so its id cannot be reused."""
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _follow_parent(connection: socket.socket) -> bool:
    """Have Linux kill this process group when the client ends, even without the fork server.

    Returns False if the client has ended already.
    """
    fcntl.fcntl(connection, fcntl.F_SETOWN, -os.getpid())
    fcntl.fcntl(connection, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(connection, fcntl.F_SETFL, fcntl.fcntl(connection, fcntl.F_GETFL) | os.O_ASYNC)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return True
    except OSError:
        return False
