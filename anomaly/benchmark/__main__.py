"""Evaluate detectors on labelled series: `python -m anomaly.benchmark DIR [--detector NAME] [--scores OUT] [--json]`.

A detector receives the rows of each series in order, in batches, with their times; one setting is used for all
series. The score at the default threshold is what users get; the best threshold is chosen with the labels.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from timeit import default_timer
from typing import NamedTuple, NotRequired, TypedDict

import numpy as np

from anomaly.alerting import Explaining
from anomaly.benchmark import corpus, scorer
from anomaly.benchmark.charts import Picture, page
from anomaly.benchmark.detectors import NAMED, OURS, RIVERS, UnknownDetectorError, named
from anomaly.detector import Detector, DetectorFactory, FloatVector

BATCH = 500
_MAX_NOTES = 12  # explanations per chart

Scores = dict[str, dict[str, float]]  # by profile


class Figures(TypedDict):
    """The reported figures of a run, as JSON values; `shipped` are those at the default threshold."""

    shipped: Scores
    best: Scores
    records_per_second: float
    bytes_per_key: float
    halves: NotRequired[dict[str, Figures]]


class Run(NamedTuple):
    """The result of one detector on a corpus: scores and explanations of each series, speed and memory."""

    name: str
    threshold: float
    scores: list[FloatVector]
    notes: list[list[str]]
    records_per_second: float
    bytes_per_key: float


def run(name: str, factory: DetectorFactory, series: Sequence[corpus.Series]) -> Run:
    """Score each series with a new detector."""
    few = series[0]._replace(X=series[0].X[:2], times=series[0].times[:2])
    _process(factory(few.features), few)  # compiles the loops before the time is measured
    scores, notes, seconds, memory = [], [], 0.0, 0
    for one in series:
        detector = factory(one.features)
        begin = default_timer()
        found, explanations = _process(detector, one)
        seconds += default_timer() - begin
        memory = max(memory, getattr(detector, "bytes_per_key", len(detector.snapshot())))
        scores.append(found)
        notes.append(explanations)
    return Run(
        name, detector.threshold, scores, notes, sum(len(s) for s in scores) / max(seconds, 1e-9), memory
    )


def _process(detector: Detector, one: corpus.Series) -> tuple[FloatVector, list[str]]:
    scores: list[FloatVector] = []
    notes: list[str] = []
    for begin in range(0, len(one.X), BATCH):
        part = slice(begin, begin + BATCH)
        X, times = one.X[part], one.times[part]
        keys = [one.name] * len(X)
        if not isinstance(detector, Explaining):
            scores.append(detector.process_many(keys, X, times))
            continue
        assessment = detector.assess_many(keys, X, times)
        scores.append(assessment.scores)
        notes.extend(
            f"{np.datetime_as_string(times[row], unit='m')}: {detector.explain(assessment, row)}"
            for row in np.flatnonzero(assessment.scores >= detector.threshold).tolist()
        )
    return np.concatenate([np.zeros(0), *scores]), notes


def figures(done: Run, truths: Sequence[scorer.Truth]) -> Figures:
    """Compute the figures of a run."""
    shipped = {
        profile: scorer.at(truths, done.scores, profile, done.threshold)._asdict()
        for profile in scorer.PROFILES
    }
    best = {profile: scorer.best(truths, done.scores, profile)._asdict() for profile in scorer.PROFILES}
    return {
        "shipped": shipped,
        "best": best,
        "records_per_second": done.records_per_second,
        "bytes_per_key": done.bytes_per_key,
    }


def halves(done: Run, truths: Sequence[scorer.Truth]) -> dict[str, Figures]:
    """Compute figures of every second series by name, starting with the first and with the second."""
    parts = {"first": slice(0, None, 2), "second": slice(1, None, 2)}
    return {
        name: figures(done._replace(scores=done.scores[part]), truths[part]) for name, part in parts.items()
    }


def write(folder: Path, done: Run, series: Sequence[corpus.Series]) -> None:
    """Write the scores of each series as CSV, and a page of charts."""
    pictures = []
    for one, scores, notes in zip(series, done.scores, done.notes, strict=True):
        alerts = scores >= done.threshold
        corpus.write_scores(folder, one, scores, alerts)
        more = [f"… and {len(notes) - _MAX_NOTES} more"] if len(notes) > _MAX_NOTES else []
        shown = [*notes[:_MAX_NOTES], *more]
        places = np.flatnonzero(alerts).tolist()
        pictures.append(
            Picture(one.name, one.times, one.X[:, 0], scores, done.threshold, places, one.windows, shown)
        )
    (folder / "index.html").write_text(page(f"{done.name} at threshold {done.threshold:g}", pictures))


def table(results: dict[str, Figures]) -> str:
    """Format the results at the default threshold and at the best one."""
    head = f"{'':24}{'standard':>10}{'low FP':>8}{'low FN':>8}{'threshold':>11}{'hits':>9}{'false':>7}"
    lines = [f"{head}{'records/s':>12}{'bytes/key':>11}"]
    for name, result in results.items():
        for kind in ("shipped", "best"):
            found = result[kind]
            standard = found["standard"]
            scores = "".join(
                f"{found[profile]['score']:{width}.2f}"
                for profile, width in zip(scorer.PROFILES, (10, 8, 8), strict=True)
            )
            hits = f"{standard['hits']}/{standard['hits'] + standard['misses']}"
            cost = f"{result['records_per_second']:12,.0f}{result['bytes_per_key']:11,.0f}"
            lines.append(
                f"{name if kind == 'shipped' else '  best threshold':24}{scores}"
                f"{standard['threshold']:11.4g}{hits:>9}{standard['false_alerts']:7}"
                f"{cost if kind == 'shipped' else ''}"
            )
    return "\n".join(lines)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m anomaly.benchmark", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="corpus in the layout of NAB")
    parser.add_argument(
        "--detector",
        action="append",
        metavar="NAME",
        help=f"detector: {', '.join(NAMED)} or module:factory; may be repeated",
    )
    parser.add_argument(
        "--scores", type=Path, metavar="OUT", help="write scores and charts of the first detector"
    )
    parser.add_argument(
        "--halves", action="store_true", help="add figures of every second series (with --json)"
    )
    parser.add_argument("--json", action="store_true", help="write the figures as JSON")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Exit code 2 for arguments that cannot be used."""
    arguments = _arguments(argv)
    try:
        series = corpus.read(arguments.folder)
        chosen = {name: named(name) for name in arguments.detector or [*OURS, *RIVERS]}
    except (corpus.CorpusError, UnknownDetectorError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    truths = [one.truth for one in series]
    results: dict[str, Figures] = {}
    for number, (name, factory) in enumerate(chosen.items()):
        done = run(name, factory, series)
        results[name] = figures(done, truths) | ({"halves": halves(done, truths)} if arguments.halves else {})
        if arguments.scores is not None:
            write(arguments.scores if number == 0 else arguments.scores / name, done, series)
    if arguments.json:
        sys.stdout.write(json.dumps(_report(arguments.folder, series, results), indent=1) + "\n")
    else:
        sys.stdout.write(table(results) + "\n")
    return 0


def _report(folder: Path, series: Sequence[corpus.Series], results: dict[str, Figures]) -> object:
    report = {
        "corpus": folder.name,
        "series": len(series),
        "records": sum(len(one.X) for one in series),
        "windows": sum(len(one.windows) for one in series),
        "detectors": results,
    }
    return _plain(report)


def _plain(value: object) -> object:
    """Replace NaN and infinity, which JSON does not have, by None."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    sys.exit(main())
