"""The forkserver with clients that write to a folder."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from tests.bench.consumer.ours import arrange

if __name__ == "__main__":
    arrange()
    host: Any = importlib.import_module("stream_app.forkserver.main")
    sys.exit(host.main())
