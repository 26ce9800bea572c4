"""The named detectors of the benchmark: those of this package, and models of river."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points

from anomaly.detector import Detector, DetectorFactory
from anomaly.nearest import NearestValue
from anomaly.river import Model, StandardDeviation, with_river
from anomaly.trees import HalfSpaceTrees

SEED = 42
GROUP = "stream_app.detectors"
"""The entry-point group of detectors that other distributions provide; each refers to a `DetectorFactory`."""


class UnknownDetectorError(ValueError):
    """A name that is neither known nor can be imported."""


def _half_space_trees() -> Model:
    from river import anomaly, preprocessing

    return preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(seed=SEED)


def _loda() -> Model:
    from river import anomaly

    return anomaly.LODA(seed=SEED)


def _local_outlier_factor() -> Model:
    from river import anomaly

    return anomaly.LocalOutlierFactor()


def _our_trees(features: Sequence[str]) -> Detector:
    return HalfSpaceTrees(features, seed=SEED)


OURS: Mapping[str, DetectorFactory] = {
    "NearestValue": NearestValue,
    "HalfSpaceTrees": _our_trees,
    "StandardDeviation": StandardDeviation,
}
# River has no default thresholds, so these are ours. LocalOutlierFactor takes minutes and runs only on request.
RIVERS: Mapping[str, DetectorFactory] = {
    "river.HalfSpaceTrees": with_river(_half_space_trees, threshold=0.95),
    "river.LODA": with_river(_loda, threshold=10.0),
}
ON_DEMAND: Mapping[str, DetectorFactory] = {
    "river.LocalOutlierFactor": with_river(_local_outlier_factor, threshold=2.0),
}
NAMED: Mapping[str, DetectorFactory] = {**OURS, **RIVERS, **ON_DEMAND}


def named(name: str) -> DetectorFactory:
    """Return a detector factory by name, by the name of an entry point, or by `module:attribute`.

    Raises UnknownDetectorError.
    """
    if name in NAMED:
        return NAMED[name]
    if ":" not in name:
        return _installed(name)
    module, _, attribute = name.partition(":")
    try:
        found: DetectorFactory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownDetectorError(_unknown(name, ())) from error
    return found


def _installed(name: str) -> DetectorFactory:
    """Load a detector from an entry point of an installed distribution."""
    entries = entry_points(group=GROUP)
    found = [entry for entry in entries if entry.name == name]
    if not found:
        raise UnknownDetectorError(_unknown(name, sorted({entry.name for entry in entries})))
    sources = [
        f"{entry.value} of {entry.dist.name if entry.dist else 'an unknown distribution'}" for entry in found
    ]
    if len(found) > 1:
        raise UnknownDetectorError(f"detector {name!r} is declared twice: {' and '.join(sources)}")
    try:
        factory: DetectorFactory = found[0].load()
    except Exception as error:
        message = f"detector {name!r} ({sources[0]}) cannot be loaded: {type(error).__name__}: {error}"
        raise UnknownDetectorError(message) from error
    return factory


def _unknown(name: str, installed: Sequence[str]) -> str:
    return f"unknown detector {name!r} (expected {', '.join([*NAMED, *installed])} or module:factory)"
