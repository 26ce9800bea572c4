"""What tests of the embedded AWS as a program share."""

from __future__ import annotations

import psutil

from stream_app.local.server.process import LocalAws


def family(server: LocalAws) -> list[psutil.Process]:
    """Its main process, and the worker."""
    main = psutil.Process(server.pid)
    return [main, *main.children(recursive=True)]
