"""The child that is measured: `stream_app.child` as it is, with clients that write to a folder.

The environment says BENCH_FOLDER and BENCH_DETECTOR ("default", "none", "trees").
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

from anomaly.trees import HalfSpaceTrees
from stream_app import app, child
from stream_app.events import air_quality
from tests.bench.consumer.local_clients import local


def main() -> int:
    """Serve one shard."""
    clients = local(Path(os.environ["BENCH_FOLDER"]))
    setattr(app, "clients", clients)  # noqa: B010
    match os.environ.get("BENCH_DETECTOR", "default"):
        case "none":
            _replace(None)
        case "trees":
            _replace(lambda features: HalfSpaceTrees(features, seed=1))
    return child.main()


def _replace(detector: object) -> None:
    event = dataclasses.replace(air_quality.EVENT, detector=detector)  # type: ignore[arg-type]
    setattr(air_quality, "EVENT", event)  # noqa: B010


if __name__ == "__main__":
    sys.exit(main())
