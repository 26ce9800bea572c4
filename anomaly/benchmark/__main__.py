"""python -m anomaly.benchmark DIR [--detector NAME] [--scores OUT] [--json]: detectors on labelled series.

Every series is given to a detector in order, in batches, with its times; nothing is read ahead and one setting
serves all series. The score at the shipped threshold is what a user gets; the best one knows the labels.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from timeit import default_timer
from typing import Any, NamedTuple

import numpy as np

from anomaly.alerting import Explaining
from anomaly.benchmark import corpus, scorer
from anomaly.benchmark.charts import Picture, page
from anomaly.benchmark.detectors import NAMED, OURS, RIVERS, UnknownDetectorError, named
from anomaly.detector import Detector, DetectorFactory, FloatVector

BATCH = 500
_NOTES = 12  # explanations a picture


class Run(NamedTuple):
    """One detector over a corpus: the scores of each series, and what it cost."""

    name: str
    threshold: float
    scores: list[FloatVector]
    notes: list[list[str]]
    records_per_second: float
    bytes_per_key: float


def run(name: str, factory: DetectorFactory, series: Sequence[corpus.Series]) -> Run:
    """Scores every series with a new detector each."""
    few = series[0]._replace(X=series[0].X[:2], times=series[0].times[:2])
    _process(factory(few.features), few)  # compiled before the clock starts
    scores, notes, seconds, memory = [], [], 0.0, 0
    for one in series:
        detector = factory(one.features)
        begin = default_timer()
        found, said = _process(detector, one)
        seconds += default_timer() - begin
        memory = max(memory, getattr(detector, "bytes_per_key", len(detector.snapshot())))
        scores.append(found)
        notes.append(said)
    return Run(
        name, detector.threshold, scores, notes, sum(len(s) for s in scores) / max(seconds, 1e-9), memory
    )


def _process(detector: Detector, one: corpus.Series) -> tuple[FloatVector, list[str]]:
    scores, notes = [], []
    for begin in range(0, len(one.X), BATCH):
        part = slice(begin, begin + BATCH)
        X, times = one.X[part], one.times[part]
        keys = [one.name] * len(X)
        if not isinstance(detector, Explaining):
            scores.append(detector.process_many(keys, X, times))
            continue
        judged = detector.judge_many(keys, X, times)
        scores.append(judged.scores)
        for row in np.flatnonzero(judged.scores >= detector.threshold).tolist():
            notes.append(f"{np.datetime_as_string(times[row], unit='m')}: {detector.explain(judged, row)}")
    return np.concatenate([np.zeros(0), *scores]), notes


def figures(done: Run, truths: Sequence[scorer.Truth]) -> dict[str, Any]:
    """What is reported of a run: plain values only."""
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


def halves(done: Run, truths: Sequence[scorer.Truth]) -> dict[str, Any]:
    """Figures of every second series by name, beginning with the first and with the second."""
    parts = {"first": slice(0, None, 2), "second": slice(1, None, 2)}
    return {
        name: figures(done._replace(scores=done.scores[part]), truths[part]) for name, part in parts.items()
    }


def write(folder: Path, done: Run, series: Sequence[corpus.Series]) -> None:
    """Scores of each series as CSV, and a page of pictures beside them."""
    pictures = []
    for one, scores, notes in zip(series, done.scores, done.notes, strict=True):
        alerts = scores >= done.threshold
        corpus.write_scores(folder, one, scores, alerts)
        shown = [*notes[:_NOTES], *([f"… and {len(notes) - _NOTES} more"] if len(notes) > _NOTES else [])]
        places = np.flatnonzero(alerts).tolist()
        pictures.append(
            Picture(one.name, one.times, one.X[:, 0], scores, done.threshold, places, one.windows, shown)
        )
    (folder / "index.html").write_text(page(f"{done.name} at threshold {done.threshold:g}", pictures))


def table(results: dict[str, dict[str, Any]]) -> str:
    """Results for people: at the shipped threshold, then at the corpus's best."""
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
                f"{name if kind == 'shipped' else '  best, knowing labels':24}{scores}"
                f"{standard['threshold']:11.4g}{hits:>9}{standard['false_alerts']:7}"
                f"{cost if kind == 'shipped' else ''}"
            )
    return "\n".join(lines)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m anomaly.benchmark", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="a corpus in NAB's layout")
    parser.add_argument(
        "--detector",
        action="append",
        metavar="NAME",
        help=f"{', '.join(NAMED)} or module:factory; repeatable",
    )
    parser.add_argument(
        "--scores", type=Path, metavar="OUT", help="write the first detector's scores and pictures"
    )
    parser.add_argument(
        "--halves", action="store_true", help="also every second series by itself (with --json)"
    )
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; 2 when its arguments cannot be used."""
    arguments = _arguments(argv)
    try:
        series = corpus.read(arguments.folder)
        chosen = {name: named(name) for name in arguments.detector or [*OURS, *RIVERS]}
    except (corpus.CorpusError, UnknownDetectorError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    truths = [one.truth for one in series]
    results: dict[str, dict[str, Any]] = {}
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


def _report(
    folder: Path, series: Sequence[corpus.Series], results: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    report = {
        "corpus": folder.name,
        "series": len(series),
        "records": sum(len(one.X) for one in series),
        "windows": sum(len(one.windows) for one in series),
        "detectors": results,
    }
    plain: dict[str, Any] = _plain(report)
    return plain


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    sys.exit(main())
