"""The shard host's loop: a fork for each launcher that hands its pipes over.

One thread, and nothing that waits: a shard's consumer is a process of its own, so its crash or hang is its own.
A consumer lives as long as its launcher, and never longer: the host kills it when the launcher's connection ends,
and where the host is gone, Linux does.
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
from typing import Any

from stream_app.forkserver.client import GREETING

UNFIT = 3
"""The exit code of the fork server when what it loaded may not be forked."""

Tell = Callable[..., object]
_PIPES = 3


class ForkServer:
    """Serves launchers on a listening socket until SIGTERM; `work` is a shard's whole life, in the fork."""

    def __init__(self, listener: socket.socket, work: Callable[[], int], tell: Tell) -> None:
        self._listener, self._work, self._tell = listener, work, tell
        self._selector = selectors.DefaultSelector()
        self._waiting: set[socket.socket] = set()
        self._workers: dict[int, socket.socket] = {}
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stopped = False

    def run(self) -> None:
        """Serve. When it returns, no consumer is left."""
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

    def _ready(self, what: Any) -> None:
        if what is self._listener:
            self._greet()
        elif what in self._waiting:
            self._begin(what)
        elif what == self._woken:
            with suppress(BlockingIOError):
                os.read(self._woken, 512)
            self._reap()
            if self._stopped:
                for pid in self._workers:
                    _kill(pid)
        else:  # a launcher says nothing more: it is gone
            with suppress(KeyError):  # closed a moment ago, with its consumer
                self._selector.unregister(what)
            for pid, connection in self._workers.items():
                if connection is what:
                    _kill(pid)

    def _greet(self) -> None:
        with suppress(BlockingIOError):
            connection, _ = self._listener.accept()
            self._waiting.add(connection)
            self._selector.register(connection, selectors.EVENT_READ)
            with suppress(OSError):  # it left already, which its end of file will tell
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
        except OSError as error:  # no memory, no process left: the launcher's shard fails, not the host
            self._tell("no fork", error=str(error))
            self._close(connection)
            return
        if pid == 0:
            self._become(connection, pipes, host)
        with suppress(PermissionError, ProcessLookupError):  # it did so itself already, or has ended
            os.setpgid(pid, pid)
        self._workers[pid] = connection

    def _become(self, connection: socket.socket, pipes: list[int], host: int) -> None:
        """The fork: keep nothing of the host's but its own connection, and never return."""
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
                _tell_code(connection, code)
            os._exit(code)

    def _reap(self) -> None:
        """Tell the launchers of the consumers that have ended how they did."""
        with suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                _kill(ended.si_pid)  # what it started; its group is still its own
                _, status = os.waitpid(ended.si_pid, 0)
                connection = self._workers.pop(ended.si_pid)
                code = os.waitstatus_to_exitcode(status)
                if code < 0:
                    self._tell("shard process killed", pid=ended.si_pid, signal=-code)
                _tell_code(connection, code if code >= 0 else 128 - code)
                self._close(connection)

    def _close(self, connection: socket.socket) -> None:
        with suppress(KeyError):
            self._selector.unregister(connection)
        connection.close()


def _tell_code(connection: socket.socket, code: int) -> None:
    with suppress(OSError):  # a launcher that was killed asks no more
        connection.send(b"%d\n" % code)


def _kill(pid: int) -> None:
    """End a consumer and all that it started. Not yet buried, its id is nobody else's."""
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _follow_parent(connection: socket.socket) -> bool:
    """Have Linux kill this process group when the launcher goes, whatever it is doing, with or without the host.

    False when the launcher is gone already.
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
