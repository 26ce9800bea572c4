"""The ways that are compared: how each child is started."""

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
    """A consumer: a module to run with `python -m`. What is stateless can be fed the same lines again.

    A slow one is timed on the beginning of the same lines.
    """

    name: str
    module: str
    stateless: bool = False
    slow: bool = False


OURS = Way("this application", "tests.bench.consumer.ours")
STOCK = Way("stock: amazon_kclpy, river", "tests.bench.consumer.stock", slow=True)
BYTEWAX = Way("Bytewax: same rows' code", "tests.bench.consumer.on_bytewax", slow=True)
STREAMZ = Way("streamz: same rows' code", "tests.bench.consumer.on_streamz", slow=True)
FLOOR = Way("floor: read, base64, typed JSON", "tests.bench.consumer.floor", stateless=True)

# They get the environment that the daemon's launcher lays under that of its shards; it says where memory comes from.
_LAUNCHED = (OURS, FLOOR)
# Which cannot run the job from these bytes, and why.
CANNOT = {
    "Quix Streams, Faust": "read from Kafka topics alone, no other source of bytes",
    "Pathway": "rows are a table of changes: Python code sees a device's rows of one commit in no given order",
    "Flink (PyFlink), Spark": "run the work in a JVM; that is not a Python child under KCL",
}


def others() -> tuple[list[Way], list[str]]:
    """Other stream processors that are installed (`pip install .[bench]`), and the names of those that are not."""
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
    """Start a child with everything it needs in `folder`; `tree` is another checkout to take the product from."""
    launched = low_memory_environment() if way in _LAUNCHED else {}
    environ = {**launched, **prepared(case, folder, tree), **(further or {})}
    return Child([sys.executable, "-P", "-m", way.module], environ, folder / "child.log", pinned=pinned)


def prepared(case: Case, folder: Path, tree: Path | None) -> dict[str, str]:
    """The environment of a child whose settings and outputs are in `folder`."""
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
    """PYTHONPATH with the product of a checkout (this one where none is given) before everything else."""
    return os.pathsep.join(map(str, [_linked(tree or ROOT), ROOT]))


def _linked(tree: Path) -> Path:
    """The product of a checkout, and nothing else of it."""
    links = ROOT / "build" / "bench" / "trees" / tree.resolve().as_posix().strip("/").replace("/", "-")
    links.mkdir(parents=True, exist_ok=True)
    for part in _PARTS:
        link = links / part
        if not link.is_symlink():
            link.symlink_to(tree.resolve() / part)
    return links
