"""Runs the launcher of the KCL daemon in a thread, for `stream-app run` and tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from stream_app.daemon.launcher import LaunchOptions, run_daemon
from stream_app.daemon.log import Line, encoded
from stream_app.daemon.supervisor import Restarts, Stop
from stream_app.errors import FatalError


class DaemonThread:
    """Runs the daemon for the duration of a context. Every log line is also written to `log`.

    `pid` is the process ID of the current JVM, `host` that of the shard host.
    """

    def __init__(
        self,
        properties: Path,
        *,
        environ: Mapping[str, str],
        overrides: Mapping[str, str | None],
        on_line: Callable[[Line], None],
        log: IO[bytes],
        restarts: Restarts,
        before: Callable[[str], object],
        shards: int | None = None,
    ) -> None:
        self.pid: int | None = None
        self.host: int | None = None
        self.restarts = 0
        self.code: int | None = None
        self.error: Exception | None = None
        self._on_line, self._log, self._stop = on_line, log, Stop()
        self._thread = threading.Thread(
            target=self._run,
            args=(properties, environ, overrides, restarts, before, shards),
            name="daemon",
            daemon=True,
        )

    def _run(
        self,
        properties: Path,
        environ: Mapping[str, str],
        overrides: Mapping[str, str | None],
        restarts: Restarts,
        before: Callable[[str], object],
        shards: int | None,
    ) -> None:
        try:
            self.code = run_daemon(
                properties,
                LaunchOptions(environ, overrides, restarts, shards=shards),
                on_line=self._on_log_line,
                stop=self._stop,
                before=before,
            )
        except Exception as error:  # Raised again by check().
            self.error = error

    def _on_log_line(self, line: Line) -> None:
        if line.get("event") == "daemon_started":
            self.pid = int(line["pid"])
        elif line.get("event") == "host_started":
            self.host = int(line["pid"])
        elif line.get("event") == "daemon_restarting":
            self.restarts += 1
        with suppress(OSError, ValueError):  # A full disk must not stop the daemon.
            self._log.write(encoded(line))
        self._on_line(line)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether the launcher is running."""
        return self._thread.is_alive()

    def check(self) -> None:
        """Raise the error that ended the launcher, or FatalError if it ended without one."""
        if self.error is not None:
            raise self.error
        if not self._thread.is_alive():
            raise FatalError(f"the KCL daemon ended with code {self.code}")

    def stop(self) -> None:
        """Shut the daemon down gracefully, or forcibly if it has not ended after 40 s."""
        self._stop.request()
        self._thread.join(timeout=40)
        if self._thread.is_alive():
            self._stop.request()
            self._thread.join(timeout=15)
        with suppress(OSError, ValueError):
            self._log.flush()
