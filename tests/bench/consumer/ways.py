"""The compared variants, and how each child is started."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tests.bench.consumer.data import Case
from tests.bench.consumer.hosting import low_memory_environment
from tests.bench.consumer.wire import MARK, Child

ROOT = Path(__file__).parents[3]
_PARTS = ("stream_app", "anomaly", "schemas", "properties", "infra")


@dataclass(frozen=True, slots=True)
class Way:
    """A variant of the consumer: a module to run with `python -m`.

    A stateless variant can receive the same lines repeatedly. A slow one is timed on fewer of the same lines.
    """

    name: str
    module: str
    stateless: bool = False
    slow: bool = False


OURS = Way("this application", "tests.bench.consumer.ours")
STOCK = Way("stock: amazon_kclpy, river", "tests.bench.consumer.stock", slow=True)
BYTEWAX = Way("Bytewax: same row code", "tests.bench.consumer.on_bytewax", slow=True)
STREAMZ = Way("streamz: same row code", "tests.bench.consumer.on_streamz", slow=True)
FLOOR = Way("floor: read, base64, typed JSON", "tests.bench.consumer.floor", stateless=True)

# These get the allocator settings that the daemon's launcher adds to the environment of its shards.
_LAUNCHED = (OURS, FLOOR)
# Products that cannot run this job, with the reason.
CANNOT = {
    "Quix Streams, Faust": "read from Kafka topics only",
    "Pathway": "does not define the order in which Python code sees the rows of a device within a commit",
    "Flink (PyFlink), Spark": "run in a JVM, not as a Python child of KCL",
}


def others() -> tuple[list[Way], list[str]]:
    """Return the installed stream processors (`pip install .[bench]`) and the names of missing ones."""
    known = {"bytewax": BYTEWAX, "streamz": STREAMZ}
    missing = [name for name in known if find_spec(name) is None]
    return [way for name, way in known.items() if name not in missing], missing


def start(
    way: Way,
    case: Case,
    folder: Path,
    tree: Path | None = None,
    further: Mapping[str, str] | None = None,
    *,
    pinned: bool = True,
) -> Child:
    """Start a child with settings and outputs in `folder`; `tree` is another checkout to measure."""
    launched = low_memory_environment() if way in _LAUNCHED else {}
    environ = {**launched, **prepared(case, folder, tree), **(further or {})}
    return Child([sys.executable, "-P", "-m", way.module], environ, folder / "child.log", pinned=pinned)


def prepared(case: Case, folder: Path, tree: Path | None) -> dict[str, str]:
    """Write the settings to `folder` and return the environment for a child."""
    folder.mkdir(parents=True, exist_ok=True)
    properties = folder / "bench.properties"
    properties.write_text(
        "applicationName = bench\nstreamName = bench\nregionName = us-east-1\n"
        "app.bucket = bench\napp.dead_letter_queue = bench\napp.bus = bench\n"
        "app.segment_seconds = 60\napp.segment_records = 50000\napp.checkpoint_seconds = 1\n"
    )
    return {
        **os.environ,
        "PYTHONPATH": product_path(tree),
        "STREAM_APP_PROPERTIES": str(properties),
        MARK: uuid.uuid4().hex,
        "BENCH_FOLDER": str(folder / "out"),
        "BENCH_DETECTOR": case.detector,
    }


def product_path(tree: Path | None) -> str:
    """Return a PYTHONPATH that puts the application of a checkout (default: this one) first."""
    return os.pathsep.join(map(str, [_linked(tree or ROOT), ROOT]))


def _linked(tree: Path) -> Path:
    """Return a folder with links to the application's packages of a checkout only."""
    links = ROOT / "build" / "bench" / "trees" / tree.resolve().as_posix().strip("/").replace("/", "-")
    links.mkdir(parents=True, exist_ok=True)
    for part in _PARTS:
        link = links / part
        if not link.is_symlink():
            link.symlink_to(tree.resolve() / part)
    return links
