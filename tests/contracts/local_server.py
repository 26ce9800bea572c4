"""Helper functions for tests of the server of the embedded AWS."""

from __future__ import annotations

import psutil

from stream_app.local.server.process import LocalAws


def family(server: LocalAws) -> list[psutil.Process]:
    """Return the main process and its worker."""
    main = psutil.Process(server.pid)
    return [main, *main.children(recursive=True)]
