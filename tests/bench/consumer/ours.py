"""The measured child: the unchanged `stream_app.record_processor` with clients that write to a folder.

Environment variables: BENCH_FOLDER, BENCH_DETECTOR ("default", "none" or "trees") and, to write a profile,
BENCH_PROFILE (a file) and BENCH_WARM (number of messages before profiling starts).
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

from anomaly.detector import DetectorFactory
from anomaly.trees import HalfSpaceTrees
from stream_app import app, record_processor
from stream_app.events import air_quality
from tests.bench.consumer.local_clients import local
from tests.bench.consumer.stages import Clocks


def arrange() -> None:
    """Install clients that write to BENCH_FOLDER, and the detector selected by BENCH_DETECTOR."""
    vars(app)["clients"] = local(Path(os.environ["BENCH_FOLDER"]))
    match os.environ.get("BENCH_DETECTOR", "default"):
        case "none":
            _replace_detector(None)
        case "trees":
            _replace_detector(lambda features: HalfSpaceTrees(features, seed=1))


def _replace_detector(detector: DetectorFactory | None) -> None:
    vars(air_quality)["EVENT"] = dataclasses.replace(air_quality.EVENT, detector=detector)


def main() -> int:
    """Serve one shard."""
    arrange()
    profile = os.environ.get("BENCH_PROFILE")
    if not profile:
        return record_processor.main()
    clocks = Clocks(int(os.environ["BENCH_WARM"]))
    clocks.install()
    status = record_processor.main()
    clocks.write(Path(profile))
    return status


if __name__ == "__main__":
    sys.exit(main())
