"""The detectors that the benchmark knows by name: ours, and river's as they come."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from anomaly.detector import Detector, DetectorFactory
from anomaly.nearest import NearestValue
from anomaly.river import StandardDeviation, with_river
from anomaly.trees import HalfSpaceTrees

SEED = 42


class UnknownDetectorError(ValueError):
    """A name that the benchmark does not know and that cannot be imported."""


def _half_space_trees() -> Any:
    from river import anomaly, preprocessing

    return preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(seed=SEED)


def _loda() -> Any:
    from river import anomaly

    return anomaly.LODA(seed=SEED)


def _local_outlier_factor() -> Any:
    from river import anomaly

    return anomaly.LocalOutlierFactor()


def _our_trees(features: Sequence[str]) -> Detector:
    return HalfSpaceTrees(features, seed=SEED)


OURS: Mapping[str, DetectorFactory] = {
    "NearestValue": NearestValue,
    "HalfSpaceTrees": _our_trees,
    "StandardDeviation": StandardDeviation,
}
# The thresholds are ours: river ships none. LocalOutlierFactor takes minutes, and is run when it is named.
RIVERS: Mapping[str, DetectorFactory] = {
    "river.HalfSpaceTrees": with_river(_half_space_trees, threshold=0.95),
    "river.LODA": with_river(_loda, threshold=10.0),
}
ON_DEMAND: Mapping[str, DetectorFactory] = {
    "river.LocalOutlierFactor": with_river(_local_outlier_factor, threshold=2.0),
}
NAMED: Mapping[str, DetectorFactory] = {**OURS, **RIVERS, **ON_DEMAND}


def named(name: str) -> DetectorFactory:
    """A detector's factory by its name here, or as `module:attribute`. Raises UnknownDetectorError."""
    if name in NAMED:
        return NAMED[name]
    module, _, attribute = name.partition(":")
    try:
        found: DetectorFactory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownDetectorError(
            f"no detector {name!r}: choose one of {', '.join(NAMED)}, or name one as module:factory"
        ) from error
    return found
